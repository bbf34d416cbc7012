"""Two versions of the appliance take turns on one host: nothing that one of them wrote is lost or misread by the other.

The old one is the first that leaves records of newer ones alone; the new one is this checkout. Old, new, old, new: each finds
backups, what restores kept, a run that was killed, a hold and an alert of the other.
"""

from __future__ import annotations

import json
import tomllib

import pytest

from e2e import tiny
from host import HostError
from host.images import CHECKOUT
from host.shell import pipe, run
from host.versions import CannotTellError, ensure_appliance_of, first_with

pytestmark = pytest.mark.e2e

MARKER = "tests/fixtures/records/README.md"
OLD, NEW = "old", tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
RUNNING = {"shop-app-1": "running", "wiki-app-1": "running"}
FREEZE = (
    'for p in /proc/[0-9]*; do case "$(tr "\\0" " " <$p/cmdline)" in'
    ' "python -m stackward.daemon"*) kill -STOP "${p#/proc/}";; esac; done'
)
NO_UNDO = f"! ls -A {tiny.STATE}/undo | grep -q json"


@pytest.fixture(scope="module")
def old_image():
    try:
        return ensure_appliance_of(first_with(MARKER))
    except CannotTellError as reason:
        pytest.skip(f"two versions cannot take turns here: {reason}; tests/fixtures/records stand in")


@pytest.fixture
def host(old_image, small):
    """The small host with both versions' images, two stacks, and the old appliance, which has seen nothing yet."""
    small.run("docker rm -f stackward")
    pipe(["docker", "save", old_image], ["docker", "exec", "--interactive", small.name, "docker", "load", "--quiet"])
    small.run(f"docker tag {old_image} stackward:{OLD}")
    small.appliance_reset({"STACKWARD_SCHEDULE": "false", "STACKWARD_VERSION": OLD})
    for name in ("shop", "wiki"):
        tiny.up(small, name, tiny.sleeper(quiesce="stop"), {f"data/file{n}": f"{name} 1\n" for n in range(20)})
    yield small
    tiny.down(small)
    small.appliance_reset({"STACKWARD_SCHEDULE": "false"})
    small.run(f"docker rmi -f stackward:{OLD} {old_image}", check=False)


def take_over(host, version):
    """Another version starts in the place of the one that is there, which has no time to put anything right."""
    host.run("docker kill stackward && docker rm stackward")
    host.appliance_up({"STACKWARD_SCHEDULE": "false", "STACKWARD_VERSION": version})
    running = host.run("docker inspect -f '{{.Config.Image}}' stackward").stdout.strip()
    assert running == f"stackward:{version}"


def killed_at(host, point, *words):
    """Run a verb until it is killed there; the daemon, which would put things right, sees nothing of it."""
    verb = f"docker exec -e STACKWARD_CRASH_POINT={point} stackward stackward {' '.join(words)}"
    died = host.run(f"docker exec stackward sh -c '{FREEZE}'; {verb}", check=False)
    assert died.returncode == 137, f"{point} was not reached: {died.stdout} {died.stderr}"
    assert set(tiny.states(host).values()) != {"running"}


def put_right(host, *, knows_all):
    """What the killed run stopped runs again; a version that may be too old for that tells what it has left alone."""
    try:
        host.wait_until(NO_UNDO, timeout=20, every=0.2)
    except HostError:
        assert not knows_all
        assert "undo record" in tiny.said(host.stackward("check", check=False))
        return
    host.wait_until(f"[ $(docker ps -q --filter name=-app-1 | wc -l) = {len(RUNNING)} ]", timeout=20)
    assert tiny.states(host) == RUNNING


def data(host):
    return host.get(f"{tiny.ROOT}/shop/data/file1").decode()


def change(host, text):
    host.put(f"{text}\n", f"{tiny.ROOT}/shop/data/file1")


def undo(host, *, knows_all):
    """Take back the last restore of the shop; a version that is too old for it refuses, and takes back no older one."""
    done = host.stackward("restore", "shop", "--undo", check=False)
    if done.returncode:
        assert not knows_all, tiny.said(done)
        assert done.returncode == 4, tiny.said(done)
    return done.returncode == 0


def told_alerts(host):
    """What the store holds as wrong, and since when."""
    query = "SELECT scope, CAST(key AS TEXT), since FROM alert WHERE scope = 'backup-data'"
    script = f'store = sqlite3.connect("{tiny.STATE}/stackward.sqlite"); rows = store.execute("{query}").fetchall()'
    program = f"import json, sqlite3\n{script}\nprint(json.dumps(rows))"
    found = host.run(f"docker exec -i stackward python3 - <<'END'\n{program}\nEND")
    return json.loads(found.stdout)


def assert_good(host, known):
    """All backups that were ever listed are listed, and verify; returns those that are listed now."""
    verified = host.stackward_json("verify", check=False)
    assert verified["exit_code"] == 0, verified
    listed = set(tiny.listed(host))
    assert known <= listed
    status = host.stackward_json("status")
    assert any("wiki is held" in problem for problem in status["problems"]), status
    assert len(told_alerts(host)) == 1
    return listed


def test_two_versions_take_turns_on_one_host(host):
    # The old one: a backup, a restore that can be undone, a stack that lost its data, a run that is killed.
    host.stackward("backup")
    change(host, "shop 2")
    host.stackward("restore", "shop")
    assert data(host) == "shop 1\n"
    host.run(f"rm -rf {tiny.ROOT}/wiki/data/*")
    assert host.stackward("backup", check=False).returncode == 1
    alerts = told_alerts(host)
    known = assert_good(host, set())
    killed_at(host, "data-quiesced", "backup", "shop")

    # The new one puts that right, undoes the old one's restore, and leaves the same of its own.
    take_over(host, NEW)
    put_right(host, knows_all=True)
    assert undo(host, knows_all=True)
    assert data(host) == "shop 2\n"
    assert host.stackward("backup", check=False).returncode == 1
    known = assert_good(host, known)
    change(host, "shop 3")
    host.stackward("restore", "shop")
    assert data(host) == "shop 2\n"
    killed_at(host, "restore-aside", "restore", "shop")

    # The old one again.
    take_over(host, OLD)
    put_right(host, knows_all=False)
    was_undone = undo(host, knows_all=False)
    host.stackward("backup", check=False)
    known = assert_good(host, known)

    # And the new one for good.
    take_over(host, NEW)
    put_right(host, knows_all=True)
    assert was_undone or undo(host, knows_all=True)
    assert data(host) == "shop 3\n"
    assert host.stackward("backup", check=False).returncode == 1
    assert_good(host, known)
    assert told_alerts(host) == alerts
    assert tiny.states(host) == RUNNING
    tiny.assert_no_open_undo(host)
    host.put("wiki 2\n", f"{tiny.ROOT}/wiki/data/file1")
    host.stackward("accept", "wiki")
    host.stackward("backup")
    assert told_alerts(host) == []


def test_the_commit_that_is_looked_for_is_there():
    """Unless this is no checkout with a history, there is one, and it is an ancestor of what is checked out."""
    try:
        commit = first_with(MARKER)
    except CannotTellError:
        return
    assert run(["git", "-C", str(CHECKOUT), "merge-base", "--is-ancestor", commit, "HEAD"], check=False).returncode == 0
