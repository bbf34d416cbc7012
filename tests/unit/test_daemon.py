import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from stackward.core.model import Outcome
from stackward.core.week import WEEK
from stackward.store import Store, new_run_id
from stackward.tools.locks import Locks

RUN = """
import sys, time
from datetime import UTC, datetime
from pathlib import Path
from stackward.core.model import JobResult, Outcome
from stackward.runner import Runner
from stackward.store import Store
from stackward.tools.locks import Locks
from stackward.tools.signals import interruptible

def work(_context):
    print("at work", flush=True)
    time.sleep(60)
    return JobResult(Outcome.OK)

def clock():
    return datetime.now(UTC)

state = Path(sys.argv[1])
locks = Locks(state / "locks")
with Store.open(state / "stackward.sqlite", now=clock(), locks=locks) as store, interruptible():
    Runner(store, locks, clock).execute("backup-data", work)
"""


@pytest.fixture
def environment(tmp_path):
    for name in ("docker", "backup", "state", "volume", "etc", "run", "log"):
        (tmp_path / name).mkdir()
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": ":".join(sys.path),
        "DOCKER_ROOT": str(tmp_path / "docker"),
        "BACKUP_ROOT": str(tmp_path / "backup"),
        "STACKWARD_VOLUME": str(tmp_path / "volume"),
        "STACKWARD_STATE_DIR": str(tmp_path / "state"),
        "STACKWARD_CONFIG_DIR": str(tmp_path / "etc"),
        "STACKWARD_RUN_DIR": str(tmp_path / "run"),
        "STACKWARD_LOG_DIR": str(tmp_path / "log"),
        **{row.variable: "off" for row in WEEK if row.name != "nightly"},
        "STACKWARD_DOCKER_HOST": f"unix://{tmp_path}/no-docker.sock",
        "TZ": "UTC",
    }


@pytest.fixture
def state(tmp_path, environment):
    return tmp_path / "state"


@pytest.fixture
def store(state):
    with Store.open(state / "stackward.sqlite", now=datetime.now(UTC), locks=Locks(state / "locks")) as opened:
        yield opened


@contextmanager
def running(environment, *argv):
    with subprocess.Popen([sys.executable, *argv], env=environment, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def daemon(environment):
    return running(environment, "-m", "stackward.daemon")


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return found


def ended(process):
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    return [json.loads(line) for line in output.splitlines()]


def test_it_shows_that_it_lives_and_ends_when_told(environment, state):
    with daemon(environment) as process:
        until((state / "heartbeat").exists)
        lines = ended(process)
        assert process.returncode == 0
    assert [line["message"] for line in lines][-1] == "the daemon ends"


def test_wrong_settings_end_it_at_once_with_all_that_is_wrong(environment):
    environment |= {"STACKWARD_SCHEDULE": "perhaps", "STACKWARD_BACKUP_DEFUALT": "true"}
    with daemon(environment) as process:
        output, _ = process.communicate(timeout=20)
        assert process.returncode == 2
    assert b"STACKWARD_SCHEDULE" in output
    assert b"STACKWARD_BACKUP_DEFUALT" in output


def test_a_missed_night_is_made_up_for_once(environment, store):
    store.set_note("first-start", (datetime.now(UTC) - timedelta(days=2)).isoformat())
    with daemon(environment) as process:
        row = until(lambda: (row := store.last_run("nightly")) and row.outcome and row)
        ended(process)
    assert (row.trigger, row.outcome, row.reasons) == (
        "schedule",
        Outcome.SKIPPED,
        ("no stack is opted in: run `stackward init`",),
    )
    assert len(store.runs("nightly")) == 1


def test_a_new_host_is_left_alone(environment, store):
    with daemon(environment) as process:
        until(lambda: store.note("first-start"))
        time.sleep(1)
        ended(process)
    assert store.runs() == []


def test_without_a_schedule_nothing_begins_by_itself(environment, store):
    store.set_note("first-start", (datetime.now(UTC) - timedelta(days=2)).isoformat())
    with daemon(environment | {"STACKWARD_SCHEDULE": "false"}) as process:
        time.sleep(2)
        ended(process)
    assert store.runs() == []


def test_runs_that_were_killed_are_recorded_at_the_start(environment, store):
    begun = datetime.now(UTC) - timedelta(hours=1)
    run_id = store.begin_run("backup-data", begun, "cli", run_id=new_run_id(begun))
    with daemon(environment) as process:
        row = until(lambda: (row := store.run(run_id)) and row.outcome and row)
        ended(process)
    assert (row.outcome, row.reasons) == (Outcome.FAILED, ("interrupted",))


def test_told_to_end_it_ends_runs_that_others_started(environment, state, store):
    with daemon(environment) as process, running(environment, "-c", RUN, state) as other:
        assert other.stdout.readline() == b"at work\n"
        until((state / "heartbeat").exists)
        ended(process)
        assert process.returncode == 0
        other.wait(timeout=1)
    row = store.last_run("backup-data")
    assert (row.outcome, row.reasons) == (Outcome.FAILED, ("interrupted",))


def test_what_runs_often_runs_within_the_daemon_and_leaves_its_trace(environment, store):
    """Every minute here; no Engine answers, and that is what it finds."""
    store.set_note("first-start", (datetime.now(UTC) - timedelta(minutes=2)).isoformat())
    settings = {"STACKWARD_SCHEDULE_OBSERVABILITY": "* * * * *", "STACKWARD_CHECKS": "db=container:db"}
    with daemon(environment | settings) as process:
        row = until(lambda: (row := store.last_run("observability")) and row.outcome and row, 60)
        lines = ended(process)
    assert (row.trigger, row.outcome) == ("schedule", Outcome.FAILED)
    assert store.alerts("observability").keys() == {"db"}
    assert "observability ended failed" in [line["message"] for line in lines]


def test_during_a_pause_nothing_begins_and_after_it_what_was_missed_does(environment, store):
    store.set_note("first-start", (datetime.now(UTC) - timedelta(days=2)).isoformat())
    store.pause(datetime.now(UTC) + timedelta(hours=1))
    with daemon(environment) as process:
        time.sleep(3)
        assert store.runs() == []
        store.resume()
        until(lambda: store.last_run("nightly"))
        ended(process)


def test_what_somebody_asks_for_is_done_once(environment, store):
    store.request("backup-config", datetime.now(UTC))
    with daemon(environment) as process:
        row = until(lambda: (row := store.last_run("backup-config")) and row.outcome and row)
        time.sleep(6)
        ended(process)
    assert row.trigger == "change"
    assert (len(store.runs("backup-config")), store.requests()) == (1, {})


def test_a_backup_that_hangs_holds_up_no_other_job(environment, store, state, tmp_path):
    """Whoever has the lock on backups does not let go of it."""
    store.set_note("first-start", (datetime.now(UTC) - timedelta(days=8)).isoformat())
    (tmp_path / "docker" / "shop").mkdir()
    (tmp_path / "docker" / "shop" / "compose.yaml").write_text(
        "services: {web: {image: nginx, labels: {stackward.backup: 'true'}}}\n"
    )
    environment |= {"STACKWARD_SCHEDULE_ROTATE_LOGS": "on", "STACKWARD_SCHEDULE_WEEKLY": "59 1 * * *"}
    with Locks(state / "locks").hold("backup-root"), daemon(environment) as process:
        until(lambda: (row := store.last_run("rotate-logs")) and row.outcome, 60)
        assert until(lambda: store.last_run("weekly")).outcome is None
        time.sleep(6)
        assert store.last_run("nightly") is None  # it would only wait for the same
        ended(process)
        assert process.returncode == 0
    assert store.last_run("weekly").outcome is Outcome.FAILED


def test_a_history_that_is_replaced_or_damaged_while_it_runs_is_opened_anew(environment, state, store):
    with daemon(environment) as process:
        until(lambda: store.note("first-start"))
        for path in state.glob("stackward.sqlite*"):
            path.unlink()
        (state / "stackward.sqlite").write_bytes(b"no database" * 1000)
        until(lambda: list(state.glob("stackward.sqlite.damaged-*")))
        with Store.open(state / "stackward.sqlite", now=datetime.now(UTC), locks=Locks(state / "locks")) as anew:
            anew.request("backup-config", datetime.now(UTC))
            until(lambda: anew.last_run("backup-config"), 30)
        lines = ended(process)
    assert [line for line in lines if "the run history was damaged" in line["message"]]
