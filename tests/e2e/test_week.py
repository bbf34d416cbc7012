"""The week on a real host: what the daemon begins by itself, what the watcher sees, what a restart of Docker leaves.

One host for all of it, with its clock as it is: the rows that are to begin by themselves here do so every minute.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from e2e import tiny
from host import Host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from host import Run

pytestmark = pytest.mark.e2e

EVERY_MINUTE = {"health": "* * * * *", "host-report": "* * * * *"}
ROWS = (
    *("health", "observability", "snapshot", "staging", "nightly", "weekly"),
    *("docker-prune", "drill", "audit", "host-report", "rotate-logs"),
)
# Ends badly as soon as its file is there; nobody starts it again.
MORTAL = {
    "services": {
        "app": tiny.service(
            "./data:/data",
            labels={},
            entrypoint=["sh", "-c", "until [ -e /data/die ]; do sleep 0.1; done; exit 3"],
            restart="no",
        )
    }
}
# Its hook waits for as long as a test wants.
HELD = tiny.sleeper(
    pre="touch /tmp/frozen; while [ -e /data/hold ]; do sleep 0.1; done", post="rm -f /tmp/frozen", drill="off"
)


@pytest.fixture(scope="module")
def week(host_run: Run) -> Iterator[Host]:
    one = Host.start(host_run.id)
    try:
        settings = {f"STACKWARD_SCHEDULE_{name.upper().replace('-', '_')}": "off" for name in ROWS}
        settings |= {f"STACKWARD_SCHEDULE_{n.upper().replace('-', '_')}": cron for n, cron in EVERY_MINUTE.items()}
        tiny.up(one, "held", HELD)
        tiny.up(one, "mortal", MORTAL)
        one.appliance_up({**settings, "TZ": "Europe/Berlin", "STACKWARD_BACKUP_ON_CHANGE": "1s"})
        one.run(f"rm -f {tiny.ROOT}/held/data/hold")
        yield one
    finally:
        one.destroy()


def jobs(host: Host) -> dict[str, dict]:
    return {one["job"]: one for one in host.stackward_json("jobs")["jobs"]}


def runs(host: Host, job: str) -> list[dict]:
    return host.stackward_json("runs", "--job", job)


def until(condition, seconds: float = 30):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.5)
    return found


def said(host: Host) -> list[str]:
    """Every line of the appliance's log, from all its programs."""
    lines = host.run("docker logs stackward 2>&1").stdout.splitlines()
    return [json.loads(line)["message"] for line in lines if line.startswith("{")]


def test_every_row_runs_as_the_schedule_runs_it_and_leaves_its_trace(week):
    for name in ROWS:
        done = week.stackward("run", name, "--scheduled", check=False)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
        assert all(line.startswith("{") for line in done.stdout.splitlines()), name
    found = jobs(week)
    assert set(found) == set(ROWS)
    outcomes = {name: row["last_outcome"] for name, row in found.items()}
    skipped = {name for name, outcome in outcomes.items() if outcome == "skipped"}
    assert skipped == {"staging"}  # no stack has it on
    assert outcomes["observability"] is None  # nobody to ask here
    assert {outcomes[name] for name in set(ROWS) - skipped - {"observability"}} <= {"ok", "warn"}
    names = tiny.backup_names(week)
    assert [name for name in names if name.startswith("configs-") and name.endswith(".tar.gz")]
    assert [name for name in names if name.startswith("data-")]
    week.run("test -s /var/log/docker-audit.json && test -s /var/log/docker-host.json")
    week.run("grep -q 'nightly' /var/log/ct-controller/stackward.log")
    week.run("ls /srv/containers/.stackward | grep -q .")


def test_the_daemon_begins_by_itself_what_is_due_within_itself_and_beside_it(week):
    for name in EVERY_MINUTE:
        found = until(lambda name=name: [row for row in runs(week, name) if row["outcome"]], 75)
        assert {row["trigger"] for row in found} == {"schedule"}
    assert [row for row in jobs(week).values() if row["next"]] == [jobs(week)[name] for name in EVERY_MINUTE]
    assert jobs(week)["nightly"]["off"] == "STACKWARD_SCHEDULE_NIGHTLY is off"
    assert "health begins" not in said(week)  # so often that only what goes wrong is said


def test_a_new_stack_is_announced_and_its_configuration_backed_up(week):
    tiny.write(week, "fresh", tiny.sleeper())
    until(lambda: "stack fresh is new" in said(week))
    row = until(lambda: [row for row in runs(week, "backup-config") if row["trigger"] == "change" and row["outcome"]])[
        0
    ]
    assert row["outcome"] in ("ok", "warn")
    listed = week.run(f"tar -tzf {tiny.BACKUPS}/$(ls {tiny.BACKUPS} | grep 'gz$' | tail -1)").stdout
    assert "fresh/compose.yaml" in listed


def test_a_container_that_dies_is_found_at_once_and_so_is_its_return(week):
    week.run(f"touch {tiny.ROOT}/mortal/data/die")
    row = until(lambda: [row for row in runs(week, "health") if row["outcome"] == "failed"])[0]
    parts = {part["stack"]: part for part in week.stackward_json("run", "health", check=False)["steps"][0]["stacks"]}
    assert parts["mortal"]["reasons"] == ["mortal-app-1 ended with exit code 3"]
    assert row["trigger"] in ("change", "schedule")
    assert "mortal-app-1 of mortal died with exit code 3" in said(week)
    week.run(f"rm {tiny.ROOT}/mortal/data/die && docker start mortal-app-1")
    until(lambda: runs(week, "health")[0]["outcome"] == "ok")


def hold_a_night(host: Host):
    """A nightly chain that stands in the midst of a stack's hook."""
    host.run(f"touch {tiny.ROOT}/held/data/hold")
    run = host.start_command("docker exec stackward stackward run nightly --scheduled")
    host.wait_until("docker exec held-app-1 test -e /tmp/frozen", timeout=30, every=0.2)
    return run


def assert_all_is_well(host: Host) -> None:
    host.wait_until("docker exec stackward stackward-healthcheck", every=0.2)
    host.wait_until("docker exec held-app-1 test ! -e /tmp/frozen", every=0.2)
    until(lambda: tiny.states(host)["held-app-1"] == "running")
    until(lambda: runs(host, "nightly")[0]["outcome"] == "failed")
    tiny.assert_no_open_undo(host)
    host.run(f"rm -f {tiny.ROOT}/held/data/hold")
    assert host.stackward("run", "nightly", "--scheduled", check=False).returncode == 0


def test_docker_restarts_in_the_midst_of_a_night_and_takes_the_appliance_with_it(week):
    run = hold_a_night(week)
    week.run("systemctl restart docker")
    run.communicate(timeout=60)
    assert_all_is_well(week)


def test_docker_restarts_in_the_midst_of_a_night_and_leaves_containers_running(week):
    """The watcher listens again afterwards."""
    week.run(
        "mkdir -p /etc/docker && echo '{\"live-restore\": true}' >/etc/docker/daemon.json && systemctl reload docker"
    )
    run = hold_a_night(week)
    week.run("systemctl restart docker")
    week.run(f"rm -f {tiny.ROOT}/held/data/hold")
    run.communicate(timeout=60)
    assert_all_is_well(week)
    until(lambda: "Docker answers again" in said(week), 60)
    week.run(f"docker start mortal-app-1 && touch {tiny.ROOT}/mortal/data/die")  # Docker started it not, nor should it
    until(lambda: said(week).count("mortal-app-1 of mortal died with exit code 3") == 2)


def test_a_time_that_cannot_be_is_said_and_ends_the_container_whose_policy_begins_it_again(week):
    """The last test: its appliance is of no use to any other."""
    week.appliance_up({"STACKWARD_SCHEDULE_NIGHTLY": "0 25 * * *"}, wait=False)
    week.wait_until("[ $(docker inspect -f '{{.RestartCount}}' stackward) -gt 0 ]")
    words = week.run("docker logs stackward 2>&1").stdout
    assert "STACKWARD_SCHEDULE_NIGHTLY must be a cron expression" in words
    assert "cannot be kept running: ending the container" in words
