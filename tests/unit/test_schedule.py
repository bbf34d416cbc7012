from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackward.core.schedule import CronError, latest_due, next_run

BERLIN = ZoneInfo("Europe/Berlin")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")  # its clocks go by half an hour
CAIRO = ZoneInfo("Africa/Cairo")  # its clocks go forward at midnight
ZONES = [BERLIN, LORD_HOWE, CAIRO, ZoneInfo("UTC"), ZoneInfo("America/New_York")]
JANUARY = datetime(2026, 1, 1, tzinfo=UTC)


def runs_of_2026(expression, zone, *, start):
    """Every run until the year is over, the clock being asked anew after each, as the daemon does."""
    now = start
    while (now := next_run(expression, now, zone)).year <= 2026:
        yield now


def test_the_next_run_is_in_local_time():
    assert next_run("0 2 * * *", datetime(2026, 7, 1, 0, 30, tzinfo=UTC), BERLIN) == datetime(
        2026, 7, 2, 2, tzinfo=BERLIN
    )
    assert next_run("0 3 * * 0", datetime(2026, 11, 21, tzinfo=UTC), BERLIN) == datetime(2026, 11, 22, 3, tzinfo=BERLIN)


def test_a_run_is_never_next_to_itself():
    two = datetime(2026, 7, 2, 2, tzinfo=BERLIN)
    assert next_run("0 2 * * *", two, BERLIN) == two + timedelta(days=1)


@pytest.mark.parametrize("zone", ZONES, ids=str)
@pytest.mark.parametrize(
    "expression", ["0 2 * * *", "15 2 * * *", "45 1 * * *", "30 0 * * *", "59 2 * * *", "0 3 * * *"]
)
def test_a_daily_job_runs_once_on_every_day_of_the_year_both_changes_of_the_clock_included(expression, zone):
    start = datetime(2025, 12, 31, 12, tzinfo=zone)
    days = [run.date() for run in runs_of_2026(expression, zone, start=start)]
    assert days == [date(2026, 1, 1) + timedelta(days=number) for number in range(365)]


def test_in_the_hour_that_spring_leaves_out_a_job_runs_right_after_the_gap():
    before = datetime(2026, 3, 29, 1, 0, tzinfo=BERLIN)
    assert next_run("30 2 * * *", before, BERLIN).isoformat() == "2026-03-29T03:00:00+02:00"
    before = datetime(2026, 10, 4, 1, 0, tzinfo=LORD_HOWE)
    assert next_run("15 2 * * *", before, LORD_HOWE).isoformat() == "2026-10-04T02:30:00+11:00"


def test_in_the_hour_that_autumn_repeats_a_job_runs_the_first_time_only():
    before = datetime(2026, 10, 25, 1, 0, tzinfo=BERLIN)
    first = next_run("30 2 * * *", before, BERLIN)
    assert first.isoformat() == "2026-10-25T02:30:00+02:00"
    assert next_run("30 2 * * *", first, BERLIN).isoformat() == "2026-10-26T02:30:00+01:00"


def test_asked_within_the_repeated_hour_it_does_not_run_again():
    within = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)  # 02:10, the second time
    assert next_run("30 2 * * *", within, BERLIN).isoformat() == "2026-10-26T02:30:00+01:00"
    ran = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert latest_due("30 2 * * *", ran, within + timedelta(minutes=40), BERLIN) is None


def test_an_hourly_job_runs_in_both_hours_that_autumn_repeats():
    assert len(list(runs_of_2026("0 * * * *", BERLIN, start=datetime(2025, 12, 31, 23, 59, tzinfo=BERLIN)))) == 365 * 24


def test_every_ten_minutes_means_in_real_time_through_both_changes():
    for start in (datetime(2026, 3, 28, 22, tzinfo=UTC), datetime(2026, 10, 24, 22, tzinfo=UTC)):
        now = start
        for _ in range(60):
            later = next_run("*/10 * * * *", now, BERLIN)
            assert later.astimezone(UTC) - now.astimezone(UTC) == timedelta(minutes=10)
            now = later


def test_a_missed_run_is_made_up_for_once_whatever_was_missed():
    ran = datetime(2026, 11, 1, 2, tzinfo=BERLIN)
    now = datetime(2026, 11, 21, 9, tzinfo=BERLIN)
    assert latest_due("0 2 * * *", ran, now, BERLIN) == datetime(2026, 11, 21, 2, tzinfo=BERLIN)
    assert latest_due("0 2 * * *", now, now, BERLIN) is None


def test_nothing_is_due_before_its_time_and_it_is_due_at_its_time():
    ran = datetime(2026, 11, 20, 2, tzinfo=BERLIN)
    due = datetime(2026, 11, 21, 2, tzinfo=BERLIN)
    assert latest_due("0 2 * * *", ran, due - timedelta(seconds=1), BERLIN) is None
    assert latest_due("0 2 * * *", ran, due, BERLIN) == due


def test_a_rare_job_is_found_however_long_ago_it_was_due():
    ran = datetime(2020, 1, 1, tzinfo=UTC)
    assert latest_due("0 0 29 2 *", ran, JANUARY, BERLIN) == datetime(2024, 2, 29, tzinfo=BERLIN)
    assert latest_due("0 5 1 1 *", ran, JANUARY, BERLIN) == datetime(2025, 1, 1, 5, tzinfo=BERLIN)


@settings(max_examples=60, deadline=None)
@given(
    expression=st.sampled_from(
        ["30 2 * * *", "0 3 * * 0", "*/20 * * * *", "15 */5 * * *", "0 4 1 * *", "59 1 * * 6,0"]
    ),
    zone=st.sampled_from(ZONES),
    near=st.sampled_from(
        [datetime(2026, 3, 29, 1), datetime(2026, 10, 25, 1), datetime(2026, 4, 4, 15), datetime(2026, 10, 3, 15)]
    ),
    ran_minutes=st.integers(0, 60 * 24 * 40),
    now_minutes=st.integers(-180, 180),
)
def test_the_latest_due_is_the_last_of_all_runs_since(expression, zone, near, ran_minutes, now_minutes):
    now = near.replace(tzinfo=UTC) + timedelta(minutes=now_minutes)
    ran = now - timedelta(minutes=ran_minutes)
    every, at = [], ran
    while (at := next_run(expression, at, zone)).astimezone(UTC) <= now:
        every.append(at)
    assert latest_due(expression, ran, now, zone) == (every[-1] if every else None)


@pytest.mark.parametrize(
    "expression", ["", "0 2 * *", "0 25 * * *", "0 0 30 2 *", "a b c d e", "0 0 0 2 * *", "*/0 * * * *"]
)
def test_what_names_no_time_is_refused_with_the_expression(expression):
    with pytest.raises(CronError) as caught:
        next_run(expression, JANUARY, BERLIN)
    assert repr(expression) in str(caught.value)
    with pytest.raises(CronError):
        latest_due(expression, JANUARY, JANUARY, BERLIN)


def test_what_never_comes_within_decades_is_refused():
    with pytest.raises(CronError, match="no time that ever comes"):
        next_run("0 0 */31 2 1#5", JANUARY, BERLIN)
