from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from stackward import chains
from stackward.core.model import JobResult, Outcome, StackResult
from stackward.store import Store
from stackward.tools.locks import Locks

BERLIN = ZoneInfo("Europe/Berlin")
SATURDAY = datetime(2026, 11, 21, 2, 0, tzinfo=BERLIN)
SINCE = datetime(2026, 11, 18, 12, 0, tzinfo=BERLIN)  # a Wednesday


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "s.sqlite", now=SATURDAY, locks=Locks(tmp_path)) as opened:
        yield opened


def record(store, job, at, outcome, *parts, trigger="schedule"):
    run_id = store.begin_run(job, at, trigger)
    store.end_run(run_id, at + timedelta(minutes=1), JobResult(outcome, stacks=parts))


def names(store, now, since=SINCE):
    return [(at.strftime("%a %H:%M"), chain.name) for at, chain in chains.due(store, since, now, BERLIN)]


def test_nothing_is_due_before_its_time_and_missed_nights_are_made_up_for_once(store):
    assert names(store, SINCE + timedelta(hours=13)) == []
    assert names(store, SATURDAY + timedelta(hours=9)) == [("Sat 02:00", "nightly")]
    record(store, "nightly", SATURDAY + timedelta(hours=9), Outcome.FAILED)
    assert names(store, SATURDAY + timedelta(hours=10)) == []


def test_sunday_has_both_in_their_order(store):
    record(store, "nightly", SATURDAY, Outcome.OK)
    assert names(store, SATURDAY + timedelta(days=1, hours=2)) == [("Sun 02:00", "nightly"), ("Sun 03:00", "weekly")]


def test_a_new_host_is_not_backed_up_for_nights_before_it_came(store):
    noon = SATURDAY + timedelta(hours=10)
    assert names(store, noon, since=noon - timedelta(hours=1)) == []


def test_a_clock_that_was_wrong_once_does_not_stop_the_schedule(store):
    record(store, "nightly", SATURDAY, Outcome.OK)
    record(store, "nightly", SATURDAY + timedelta(days=4000), Outcome.OK)
    assert names(store, SATURDAY + timedelta(days=1, minutes=1)) == [("Sun 02:00", "nightly")]


def test_only_the_stacks_that_failed_are_tried_again(store):
    parts = (StackResult("good", Outcome.OK), StackResult("bad", Outcome.FAILED), StackResult("", Outcome.FAILED))
    record(store, "backup-data", SATURDAY, Outcome.FAILED, *parts)

    assert not chains.due_retries(store, SATURDAY + timedelta(minutes=30))
    due = chains.due_retries(store, SATURDAY + timedelta(minutes=62))
    assert due.stacks == ("bad",)
    assert due.wanted == chains.Wanted(config=False, data=True, stacks=("bad",), verify="new")


def test_a_stack_that_came_through_is_not_tried_again(store):
    record(store, "backup-data", SATURDAY, Outcome.FAILED, StackResult("bad", Outcome.FAILED))
    later = SATURDAY + timedelta(hours=1, minutes=5)
    record(store, "backup-data", later, Outcome.OK, StackResult("bad", Outcome.OK), trigger="retry")
    assert not chains.due_retries(store, SATURDAY + timedelta(hours=6))


def test_what_failed_before_it_came_to_any_stack_is_tried_as_a_whole(store):
    record(store, "backup-config", SATURDAY, Outcome.FAILED)
    record(store, "backup-data", SATURDAY, Outcome.FAILED)

    due = chains.due_retries(store, SATURDAY + timedelta(hours=2))
    assert (due.config, due.all_data, due.stacks) == (True, True, ())
    assert due.wanted.config
    assert due.wanted.data

    for hours in (1, 4):
        record(store, "backup-config", SATURDAY + timedelta(hours=hours), Outcome.FAILED, trigger="retry")
    assert not chains.due_retries(store, SATURDAY + timedelta(hours=9)).config


def test_a_run_that_goes_on_is_not_tried_again(store):
    store.begin_run("backup-data", SATURDAY, "schedule")
    assert not chains.due_retries(store, SATURDAY + timedelta(hours=6))


def test_chains_are_known_by_name():
    assert [chains.named(chain.name) for chain in chains.WEEK] == list(chains.WEEK)
    assert chains.named("weekly").schedule == "0 3 * * 0"
