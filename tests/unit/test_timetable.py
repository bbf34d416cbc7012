from dataclasses import replace
from datetime import timedelta

import pytest

from stackward.core.model import JobResult, Outcome
from stackward.tools.locks import Locks
from stackward.week import timetable
from stackward.wiring import Appliance
from unit.hosts import NOW, SmallHost


@pytest.fixture
def appliance(tmp_path):
    small = SmallHost(tmp_path)
    return Appliance(small.settings, Locks(tmp_path / "locks"), small.store)


def record(store, job, begun, took):
    run_id = store.begin_run(job, begun, "schedule")
    store.end_run(run_id, begun + took, JobResult(Outcome.OK))


def test_what_never_ran_counts_from_our_first_start_and_a_run_of_the_future_for_nothing(appliance):
    store = appliance.store
    timetable.begin(store, NOW)
    timetable.begin(store, NOW + timedelta(days=1))
    last = timetable.last_begun(store, NOW + timedelta(days=2))
    assert last("nightly") == NOW
    record(store, "nightly", NOW + timedelta(days=1), timedelta(minutes=1))
    record(store, "nightly", NOW + timedelta(days=4000), timedelta(minutes=1))
    assert last("nightly") == NOW + timedelta(days=1)


def test_a_run_is_overdue_when_it_takes_much_longer_than_it_ever_did(appliance):
    begun = {"nightly": NOW - timedelta(hours=2), "health": NOW - timedelta(minutes=20)}
    assert set(timetable.overdue(appliance, begun, {}, NOW)) == {"health"}
    for day in range(1, 4):
        record(appliance.store, "nightly", NOW - timedelta(days=day), timedelta(minutes=20))
    late = timetable.overdue(appliance, begun, {}, NOW)
    assert late["nightly"].startswith("nightly is at work since 10:00, longer than it should be.")


def test_what_is_due_and_cannot_begin_is_overdue_too(appliance):
    waiting = {"weekly": NOW - timedelta(hours=25), "audit": NOW - timedelta(hours=1)}
    late = timetable.overdue(appliance, {}, waiting, NOW)
    assert set(late) == {"weekly"}
    assert "has not begun" in late["weekly"]


def test_what_is_in_no_row_may_take_half_a_day(appliance):
    assert timetable.overdue(appliance, {"retry": NOW - timedelta(hours=11)}, {}, NOW) == {}
    assert set(timetable.overdue(appliance, {"retry": NOW - timedelta(hours=13)}, {}, NOW)) == {"retry"}


def test_without_jitter_nothing_is_asked_of_docker(appliance):
    assert timetable.agenda(appliance).next(timetable.planned(appliance.settings)[0], NOW)
    assert "docker" not in vars(appliance)
    shifted = replace(appliance, settings=replace(appliance.settings, jitter=timedelta(hours=1)))
    assert timetable.agenda(shifted)
