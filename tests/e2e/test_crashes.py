"""The appliance is killed at every named point, and with what kills it for real; then it is started again.

After each: every backup that is listed verifies, every container is in the state that it was in, nothing waits to be taken
back, data is the old or the new one whole, and the next backup is good and leaves nothing half made.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e import tiny
from stackward.steps import crashpoints
from stackward.steps.crashpoints import POINTS

pytestmark = pytest.mark.e2e

# One stack that stands still in every way at once: its trees lie on DOCKER_ROOT, on Btrfs and in a named volume.
VOLUMES = ("./data:/data", "/srv/containers/mixed:/btrfs", "named:/named")
MIXED = {
    "services": {
        "stopped": tiny.service(*VOLUMES, labels=tiny.OPTED_IN | {"stackward.backup.quiesce": "stop"}),
        "paused": tiny.service(
            *VOLUMES,
            labels=tiny.OPTED_IN
            | {
                "stackward.backup.quiesce": "pause",
                "stackward.backup.pre": "touch /tmp/frozen",
                "stackward.backup.post": "rm -f /tmp/frozen",
            },
        ),
    },
    "volumes": {"named": {}},
}
TREES = ("/opt/docker/mixed/data", "/srv/containers/mixed", "/var/lib/docker/volumes/mixed_named/_data")
ALL_RUN = {"mixed-paused-1": "running", "mixed-stopped-1": "running", "plain-app-1": "running"}
# What is typed to get to a point. A new point whose name begins otherwise has no test until it stands here.
VERBS = {"data": ["backup"], "config": ["backup"], "prune": ["prune"], "restore": ["restore", "mixed"]}
# What a run has done at a point: where nothing can be seen, the point is at another place than its name says.
SEEN = {
    "data-hooked": {"frozen"},
    "data-undo-written": {"frozen", "undo"},
    "data-quiesced": {"frozen", "undo", "exited", "paused"},
    "data-snapshot": {"frozen", "undo", "exited", "paused"},
    "data-exchanged": {"incoming"},
    "config-incoming": {"incoming"},
    "config-checksum": {"incoming"},
    "prune-renamed": {"incoming"},
    "restore-stopped": {"undo", "exited"},
    "restore-aside": {"undo", "exited", "aside"},
    "restore-copied": {"undo", "exited"},
}
FREEZE = (
    'for p in /proc/[0-9]*; do case "$(tr "\\0" " " <$p/cmdline)" in'
    ' "python -m stackward.daemon"*) kill -STOP "${p#/proc/}";; esac; done'
)
# Docker writes into no paused container, so the marker of a hook is looked for from outside.
FROZEN = "test -e /proc/$(docker inspect -f '{{.State.Pid}}' mixed-paused-1)/root/tmp/frozen"
EMPTY_UNDO = f"! ls -A {tiny.STATE}/undo | grep -q json"


@pytest.fixture(scope="module")
def world(small_host):
    """The small host with both stacks, backed up twice today, and with something to prune."""
    host = small_host
    tiny.down(host)
    host.appliance_reset({"STACKWARD_SCHEDULE": "false"})
    tiny.up(host, "mixed", MIXED)
    tiny.up(host, "plain", tiny.sleeper())
    write_trees(host, "old")
    host.stackward("backup")
    host.stackward("backup", "--data")
    return host


@pytest.fixture
def before(world):
    """Whatever the last test left undone is its own failure, not the next one's."""
    if tiny.states(world) != ALL_RUN:
        world.run("for s in mixed plain; do cd /opt/docker/$s && docker compose unpause; docker compose up -d; done")
        world.run("rm -f /var/lib/stackward/undo/*")
    return world


def write_trees(host, text):
    host.run("; ".join(f"echo {text} >{tree}/file; echo {text} >{tree}/other" for tree in TREES))


def contents(host):
    """What is in all trees, without what restores kept."""
    found = host.run(
        "; ".join(f"cd {tree} && find . -type f ! -path '*/.stackward-kept/*' | sort | xargs cat" for tree in TREES)
    )
    return found.stdout.split()


def something_to_prune(host):
    """Today's first backup becomes one that was replaced years ago."""
    host.run(
        "cd /backup/docker && ls -d data-*.replaced-* | head -1 |"
        " sed -E 's/(.*replaced-)(.*)/mv -T \\1\\2 \\120200101_000000/' | sh -e"
    )


def observe(host):
    """What can be seen of a run that stands at a point."""
    script = (
        f"{FROZEN} && echo frozen; {EMPTY_UNDO} || echo undo; ls -A {tiny.BACKUPS} | grep -q ^.incoming && echo incoming;"
        "test -e /opt/docker/mixed/data || echo aside"
    )
    return set(tiny.states(host).values()) - {"running"} | set(host.run(script, check=False).stdout.split())


def crash(host, point, *words):
    """Run `words` until they die at `point`; the daemon sees nothing of it."""
    run = f"docker exec -e STACKWARD_CRASH_POINT={point} stackward stackward {' '.join(words)}"
    died = host.run(f"docker exec stackward sh -c '{FREEZE}'; {run}", check=False)
    assert died.returncode == 137, f"{point} was not reached: {died.stdout} {died.stderr}"


def kill_and_start(host):
    host.run("docker kill stackward && docker start stackward")
    host.wait_until("docker exec stackward stackward-healthcheck", every=0.1)


def assert_all_is_well(host):
    """All that must hold once the appliance runs again."""
    host.wait_until(EMPTY_UNDO, timeout=20, every=0.1)
    assert tiny.states(host) == ALL_RUN
    assert observe(host) <= {"incoming"}
    verified = host.stackward_json("verify", check=False)
    assert verified["exit_code"] == 0, verified
    assert verified["outcome"] == "ok", verified
    days = [name for name in verified["artifacts"] if name.startswith("data-")]
    assert days, "no data backup is listed any more"
    again = host.stackward_json("backup", check=False)
    assert again["exit_code"] == 0, again
    assert [step["outcome"] for step in again["steps"]] == ["ok", "ok", "ok"], again
    assert tiny.states(host) == ALL_RUN
    tiny.assert_nothing_half_done(host, snapshots=1)


def test_no_point_is_forgotten():
    """A point of another verb than these is named where it is gone through."""
    tables = [table for name, table in vars(crashpoints).items() if name.endswith("POINTS")]
    texts = [file.read_text() for file in Path(__file__).parents[1].rglob("test_*.py")]
    here = {point for point in POINTS if point.partition("-")[0] in VERBS}
    rest = {point for table in tables for point in table} - here
    assert {point for point in rest if not any(f'"{point}"' in text for text in texts)} == set()


@pytest.mark.parametrize("point", [point for point in POINTS if point.partition("-")[0] in VERBS])
def test_killed_at(point, before):
    host = before
    kind = point.partition("-")[0]
    if kind == "prune":
        something_to_prune(host)
    if kind == "restore":
        write_trees(host, "new")
    crash(host, point, *VERBS[kind])
    seen = observe(host)
    assert SEEN.get(point, set()) <= seen, seen
    kill_and_start(host)
    host.wait_until(EMPTY_UNDO, timeout=20, every=0.1)
    assert contents(host) in (["old"] * 6, ["new"] * 6)
    assert_all_is_well(host)


@pytest.mark.parametrize("point", ["data-snapshot", "restore-aside"])
def test_killed_again_while_that_is_taken_back(point, before):
    host = before
    write_trees(host, "new")
    crash(host, point, *VERBS[point.partition("-")[0]])
    crash(host, "undo-half", "backup")
    assert "exited" in observe(host)
    kill_and_start(host)
    assert_all_is_well(host)
    assert contents(host) in (["old"] * 6, ["new"] * 6)


@pytest.mark.parametrize("point", ["restore-aside", "restore-copied"])
def test_killed_while_configuration_is_restored(point, before):
    host = before
    host.put("changed\n", "/opt/docker/plain/note")
    host.run("cp /opt/docker/plain/compose.yaml /tmp/plain.yaml; echo '# changed' >>/opt/docker/plain/compose.yaml")
    crash(host, point, "restore", "config", "plain")
    kill_and_start(host)
    assert_all_is_well(host)
    assert host.get("/opt/docker/plain/note") == b"changed\n"
    compose = host.get("/opt/docker/plain/compose.yaml")
    original = host.get("/tmp/plain.yaml")
    assert compose in (original, original + b"# changed\n")


def test_the_plug_is_pulled_while_a_stack_stands_still(before):
    host = before
    crash(host, "data-snapshot", "backup")
    host.restart()
    host.wait_until("docker exec stackward stackward-healthcheck")
    assert_all_is_well(host)


def test_runs_that_were_killed_are_recorded_as_failed(before):
    crash(before, "data-incoming", "backup")
    kill_and_start(before)
    before.wait_until(EMPTY_UNDO)
    last = before.stackward_json("runs", "--limit", "1")
    assert "interrupted" in tiny.said(last)
    assert "backup-data" in tiny.said(last)
