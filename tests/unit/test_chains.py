from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from stackward.core.model import JobResult, Outcome, StackResult
from stackward.core.week import WEEK
from stackward.store import Store
from stackward.tools.locks import Locks
from stackward.week import chains, retrying

BERLIN = ZoneInfo("Europe/Berlin")
SATURDAY = datetime(2026, 11, 21, 2, 0, tzinfo=BERLIN)


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "s.sqlite", now=SATURDAY, locks=Locks(tmp_path)) as opened:
        yield opened


def record(store, job, at, outcome, *parts, trigger="schedule"):
    run_id = store.begin_run(job, at, trigger)
    store.end_run(run_id, at + timedelta(minutes=1), JobResult(outcome, stacks=parts))


def test_only_the_stacks_that_failed_are_tried_again(store):
    parts = (StackResult("good", Outcome.OK), StackResult("bad", Outcome.FAILED), StackResult("", Outcome.FAILED))
    record(store, "backup-data", SATURDAY, Outcome.FAILED, *parts)

    assert not retrying.due(store, SATURDAY + timedelta(minutes=30))
    due = retrying.due(store, SATURDAY + timedelta(minutes=62))
    assert due.stacks == ("bad",)
    assert due.wanted == chains.Wanted(config=False, data=True, stacks=("bad",), verify="new")


def test_a_stack_that_came_through_is_not_tried_again(store):
    record(store, "backup-data", SATURDAY, Outcome.FAILED, StackResult("bad", Outcome.FAILED))
    later = SATURDAY + timedelta(hours=1, minutes=5)
    record(store, "backup-data", later, Outcome.OK, StackResult("bad", Outcome.OK), trigger="retry")
    assert not retrying.due(store, SATURDAY + timedelta(hours=6))


def test_what_failed_before_it_came_to_any_stack_is_tried_as_a_whole(store):
    record(store, "backup-config", SATURDAY, Outcome.FAILED)
    record(store, "backup-data", SATURDAY, Outcome.FAILED)

    due = retrying.due(store, SATURDAY + timedelta(hours=2))
    assert (due.config, due.all_data, due.stacks) == (True, True, ())
    assert due.wanted.config
    assert due.wanted.data

    for hours in (1, 4):
        record(store, "backup-config", SATURDAY + timedelta(hours=hours), Outcome.FAILED, trigger="retry")
    assert not retrying.due(store, SATURDAY + timedelta(hours=9)).config


def test_a_run_that_goes_on_is_not_tried_again(store):
    store.begin_run("backup-data", SATURDAY, "schedule")
    assert not retrying.due(store, SATURDAY + timedelta(hours=6))


def test_everything_in_the_week_can_be_run_by_its_name():
    assert {row.name for row in WEEK} <= set(chains.names())


def test_those_that_would_wait_for_each_other_share_a_lane():
    assert {chains.lane_of(name) for name in ("nightly", "weekly", "retry", "backup-config")} == {chains.BACKUPS}
    assert chains.lane_of("health") != chains.lane_of("observability")
