"""What the store keeps for metrics: newest outcomes, totals, the last look at the host."""

import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from stackward.core.model import JobResult, Outcome, StackResult
from stackward.observe.facts import BackupFacts, ContainerFacts, SpaceFacts, StackFacts, View
from stackward.store import Store
from stackward.tools.locks import Locks

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
ODD = "caf\udce9 \n--x"


def later(hours):
    return NOON + timedelta(hours=hours)


@pytest.fixture
def opened(tmp_path):
    stores = []

    def start():
        stores.append(Store.open(tmp_path / "s.sqlite", now=NOON, locks=Locks(tmp_path / "locks")))
        return stores[-1]

    yield start
    for store in stores:
        store.close()


@pytest.fixture
def store(opened):
    return opened()


def record(store, at, outcome, *parts, job="backup-data"):
    run_id = store.begin_run(job, at, "cli")
    store.end_run(run_id, at + timedelta(minutes=1), JobResult(outcome, stacks=parts))
    return run_id


def newest(store, stack="", job="backup-data"):
    (found,) = [one for one in store.facts().jobs if (one.job, one.stack) == (job, stack)]
    return found


def test_the_newest_outcome_and_the_newest_success_are_kept_apart(store):
    record(store, NOON, Outcome.WARN, StackResult(ODD, Outcome.OK, standstill_seconds=1.5))
    record(store, later(1), Outcome.FAILED, StackResult(ODD, Outcome.FAILED))
    ended, succeeded = later(1) + timedelta(minutes=1), NOON + timedelta(minutes=1)
    for stack in ("", ODD):
        found = newest(store, stack)
        assert (found.ended_at, found.outcome, found.success_at) == (ended, Outcome.FAILED, succeeded)
    assert newest(store, ODD).standstill_seconds == 1.5
    assert newest(store).duration_seconds == 60


def test_what_was_skipped_is_neither_a_success_nor_a_failure_but_is_counted(store):
    record(store, NOON, Outcome.OK, StackResult("shop", Outcome.OK))
    record(store, later(1), Outcome.SKIPPED, StackResult("shop", Outcome.SKIPPED))
    assert newest(store).ended_at == newest(store, "shop").ended_at == NOON + timedelta(minutes=1)
    assert store.facts().totals == {("backup-data", Outcome.OK): 1, ("backup-data", Outcome.SKIPPED): 1}


def test_totals_never_shrink(store):
    run_id = record(store, NOON, Outcome.FAILED)
    store.end_run(run_id, later(1), JobResult(Outcome.OK))
    assert store.facts().totals == {("backup-data", Outcome.FAILED): 1}
    assert newest(store).outcome is Outcome.OK
    for hour in range(2, 5):
        record(store, later(hour), Outcome.OK)
    store.forget_runs_before(later(100))
    assert store.facts().totals[("backup-data", Outcome.OK)] == 3


def test_a_view_comes_back_as_it_was_kept(store):
    assert store.facts().view is None
    stack = StackFacts(
        ODD,
        "unprotected",
        "shrank",
        has_data=True,
        held=True,
        problems=2,
        data_at=NOON,
        data_bytes=7,
        data_files=1,
        containers=(ContainerFacts("db", "x-db-1", running=True, healthy=None, restarts=3),),
    )
    view = View(
        at=NOON,
        stacks=(stack, StackFacts("off", "off")),
        problems=1,
        spaces=(SpaceFacts("backup-root", 1, 2, 3),),
        backups=(BackupFacts("config", 2, NOON, 9), BackupFacts("data", 0)),
        damaged=1,
        open_undo=1,
        docker_answers=False,
        intervals={"backup-data": 86400.0},
    )
    store.keep_view(View(at=later(-1)))
    store.keep_view(view)
    assert store.facts().view == view


@pytest.mark.parametrize("text", ["", "[]", '{"at": "2026-11-21T12:00:00+00:00"}', '{"news": 1}'])
def test_a_view_of_another_version_is_none(store, text):
    store.set_note("view", text)
    assert store.facts().view is None


def test_a_history_of_before_becomes_series(tmp_path, store, opened):
    record(store, NOON, Outcome.WARN, StackResult("shop", Outcome.OK, standstill_seconds=1.5))
    record(store, later(1), Outcome.FAILED, StackResult("shop", Outcome.FAILED))
    record(store, later(2), Outcome.SKIPPED, StackResult("shop", Outcome.SKIPPED), StackResult("", Outcome.OK))
    expected = store.facts()
    store.close()
    with sqlite3.connect(tmp_path / "s.sqlite") as raw:
        for table in ("latest", "run_total", "alert", "notice"):
            raw.execute(f"DROP TABLE {table}")
        raw.execute("ALTER TABLE verified DROP COLUMN stacks")
        raw.execute("ALTER TABLE drill DROP COLUMN counted_at")
        raw.execute("ALTER TABLE drill DROP COLUMN counted")
        raw.execute("PRAGMA user_version = 1")
    raw.close()
    found = opened().facts()
    assert found.totals == expected.totals
    assert [(one.stack, one.ended_at, one.outcome, one.success_at) for one in found.jobs] == [
        (one.stack, one.ended_at, one.outcome, one.success_at) for one in expected.jobs
    ]
