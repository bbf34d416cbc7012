"""Runs that are told to end, or that meet each other: no stack stays stopped, no hook half done, nobody waits unasked."""

from __future__ import annotations

import json
import time

import pytest

from e2e import tiny

pytestmark = pytest.mark.e2e

# Takes three seconds to stop. Its peer has stopped by then: a signal in between finds one stopped and one stopping.
SLOW = {
    "services": {
        "first": tiny.service("./data:/data", depends_on=["slow"]),
        "slow": tiny.service(
            "./data:/data",
            entrypoint=["sh", "-c", "trap 'sleep 3; exit 0' TERM; while :; do sleep 0.1; done"],
            init=False,
            stop_grace_period="8s",
        ),
    }
}
# Its hooks wait for as long as a test wants, and say where they are.
HELD = tiny.sleeper(
    pre="touch /tmp/frozen; while [ -e /data/hold-pre ]; do sleep 0.1; done; touch /tmp/frozen",
    post="touch /tmp/thawing; while [ -e /data/hold-post ]; do sleep 0.1; done; rm -f /tmp/frozen /tmp/thawing",
)
ALL_RUN = {"held-app-1": "running", "slow-first-1": "running", "slow-slow-1": "running"}
DATA = "/opt/docker/held/data"


@pytest.fixture(scope="module")
def world(small_host):
    host = small_host
    tiny.down(host)
    host.appliance_reset({"STACKWARD_SCHEDULE": "false"})
    tiny.up(host, "slow", SLOW)
    tiny.up(host, "held", HELD)
    host.stackward("backup")
    return host


@pytest.fixture
def host(world):
    """The small host with both stacks backed up and running. Nothing of a test may be left over."""
    yield world
    world.run(f"rm -f {DATA}/hold-*; docker start stackward")
    world.wait_until("docker exec stackward stackward-healthcheck", every=0.1)
    world.wait_until(f"! ls -A {tiny.STATE}/undo | grep -q json", timeout=20)
    world.run("cd /opt/docker/slow && docker compose up -d; docker exec held-app-1 rm -f /tmp/frozen /tmp/thawing")


def begin(host, *words, hold="", until=""):
    """Start a run and wait until it stands where `until` is true."""
    if hold:
        host.run(f"touch {DATA}/{hold}")
    run = host.start_command(f"docker exec stackward stackward {' '.join(words)}")
    if until:
        host.wait_until(until, timeout=30, every=0.1)
    return run


def begin_held(host, *words, hold="hold-pre"):
    marker = {"hold-pre": "frozen", "hold-post": "thawing"}[hold]
    return begin(host, *(words or ("backup", "held")), hold=hold, until=f"docker exec held-app-1 test -e /tmp/{marker}")


def begin_slow(host):
    until = "docker ps -a --filter name=slow-first --format '{{.State}}' | grep -x exited"
    run = begin(host, "backup", "slow", until=until)
    time.sleep(0.5)
    return run


def send(host, signal):
    """To the run that writes backups, by the number in its lock file."""
    pid = json.loads(host.get(f"{tiny.STATE}/locks/backup-root.lock").splitlines()[-1])["pid"]
    host.run(f"docker exec stackward sh -c 'kill -{signal} {pid}'")


def end(run, timeout=60):
    out, err = run.communicate(timeout=timeout)
    return run.returncode, f"{out} {err}"


def assert_as_before(host):
    assert tiny.states(host) == ALL_RUN
    host.run("docker exec held-app-1 test ! -e /tmp/frozen")
    tiny.assert_no_open_undo(host)


def assert_next_backup_is_good(host):
    host.run(f"rm -f {DATA}/hold-*")
    done = host.stackward_json("backup", "--verify", check=False)
    assert done["exit_code"] == 0, done
    assert tiny.states(host) == ALL_RUN
    tiny.assert_nothing_half_done(host)


@pytest.mark.parametrize("signal", ["TERM", "INT", "HUP"])
def test_a_signal_ends_a_run_and_the_stack_goes_on(host, signal):
    run = begin_held(host)
    send(host, signal)
    code, words = end(run)
    assert code not in (0, 137), words
    assert f"interrupted (SIG{signal})" in words
    assert_as_before(host)
    assert "interrupted" in tiny.said(host.stackward_json("runs", "--limit", "1"))


def test_a_signal_while_a_container_is_being_stopped(host):
    run = begin_slow(host)
    send(host, "TERM")
    code, words = end(run)
    assert code not in (0, 137), words
    assert_as_before(host)
    time.sleep(3)
    assert_as_before(host)  # the stop that was under way has come to nothing
    assert_next_backup_is_good(host)


def test_a_signal_during_the_hook_that_lets_an_application_go_on(host):
    run = begin_held(host, hold="hold-post")
    send(host, "TERM")
    host.run(f"rm {DATA}/hold-post")
    code, words = end(run)
    assert code not in (0, 137), words
    assert_as_before(host)


def test_ctrl_c_on_a_terminal(host):
    host.run(f"touch {DATA}/hold-pre")
    keyboard = (
        "until docker exec held-app-1 test -e /tmp/frozen; do sleep 0.1; done; sleep 0.3; printf '\\003'; sleep 5"
    )
    terminal = 'script -qec "docker exec -it stackward stackward backup held" /dev/null'
    done = host.run(f"({keyboard}) | {terminal}", check=False)
    assert "interrupted" in done.stdout, done
    assert_as_before(host)


@pytest.mark.parametrize("begun", [begin_held, begin_slow])
def test_docker_stop_ends_runs_and_leaves_stacks_running(host, begun):
    run = begun(host)
    began = time.monotonic()
    host.run("docker stop stackward")
    assert time.monotonic() - began < 50, "supervisord or Docker had to kill it"
    assert_as_before(host)
    host.run(f"rm -f {DATA}/hold-pre")
    time.sleep(3)
    assert_as_before(host)
    end(run)
    host.run("docker start stackward")
    host.wait_until("docker exec stackward stackward-healthcheck", every=0.1)
    assert_next_backup_is_good(host)


@pytest.mark.parametrize("begun", [begin_held, begin_slow])
def test_docker_kill_in_the_midst_and_a_new_start(host, begun):
    run = begun(host)
    host.run("docker kill stackward && docker start stackward")
    end(run)
    host.wait_until("docker exec stackward stackward-healthcheck", every=0.1)
    host.wait_until(f"! ls -A {tiny.STATE}/undo | grep -q json", timeout=20, every=0.1)
    assert_as_before(host)
    host.run(f"rm -f {DATA}/hold-pre")
    time.sleep(3)
    assert_as_before(host)  # neither Docker's stop nor the hook that was under way did anything more
    assert_next_backup_is_good(host)


def test_a_killed_run_is_taken_back_while_the_appliance_goes_on(host):
    run = begin_held(host)
    send(host, "KILL")
    end(run)
    host.wait_until("docker exec held-app-1 test ! -e /tmp/frozen", timeout=30)
    assert_as_before(host)


def test_of_two_backups_at_once_the_second_is_told_or_waits(host):
    run = begin_held(host)
    for words in (["backup"], ["backup", "slow"], ["prune"], ["verify"], ["restore", "slow"]):
        second = host.stackward(*words, check=False)
        assert second.returncode == 75, words
        assert "in use by backup-data (process " in second.stderr, words
        assert "--wait" in second.stderr, words
    waiting = begin(host, "backup", "slow", "--wait")
    for words in (["list"], ["status"], ["runs"], ["stacks"], ["backup", "--help"]):
        assert host.stackward(*words, check=False).returncode == 0, words
    assert waiting.poll() is None
    host.run(f"rm {DATA}/hold-pre")
    assert end(run)[0] == 0
    code, words = end(waiting)
    assert code == 0, words
    assert "waiting for backup-data" in words
    assert_as_before(host)
    assert host.stackward_json("verify", check=False)["outcome"] == "ok"


def test_a_restore_waits_for_a_backup(host):
    host.run("echo spoilt >/opt/docker/slow/data/file")
    run = begin_held(host)
    waiting = begin(host, "restore", "slow", "--wait")
    time.sleep(2)
    assert waiting.poll() is None
    assert host.get("/opt/docker/slow/data/file") == b"spoilt\n"
    host.run(f"rm {DATA}/hold-pre")
    assert end(run)[0] == 0
    code, words = end(waiting)
    assert code == 0, words
    assert host.get("/opt/docker/slow/data/file") == b"slow\n"
    assert_as_before(host)


def test_a_backup_waits_for_a_restore(host):
    begin_slow_restore = "docker ps -a --filter name=slow-first --format '{{.State}}' | grep -x exited"
    run = begin(host, "restore", "slow", until=begin_slow_restore)
    second = host.stackward("backup", check=False)
    assert second.returncode == 75
    assert "in use by restore (process " in second.stderr
    assert end(run)[0] == 0
    assert_as_before(host)


def test_containers_are_looked_at_again_when_their_turn_comes(host):
    """What somebody stopped or started while the run was busy elsewhere stays so."""
    run = begin_held(host, "backup")
    host.run("docker stop slow-first-1")
    host.run(f"rm {DATA}/hold-pre")
    assert end(run)[0] == 0
    assert tiny.states(host) == ALL_RUN | {"slow-first-1": "exited"}


def test_a_container_that_somebody_starts_meanwhile_spoils_the_copy_and_is_told(host):
    run = begin_slow(host)
    host.run("docker start slow-first-1")
    code, words = end(run)
    assert code == 1, words
    assert "somebody started slow-first-1 while its data was copied" in words
    assert "autoheal" in words
    assert_as_before(host)
    assert_next_backup_is_good(host)
