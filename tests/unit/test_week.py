from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackward.core.schedule import interval_seconds, next_run, parse_schedule
from stackward.core.week import WEEK, Row, fixed_delay, patience, plan
from unit.hosts import NOW

ROWS = (Row("often", "*/5 * * * *", "looks"), Row("rarely", "0 4 * * 6", "removes", off="it removes things"))


def planned(*, on=True, **said):
    return {row.name: (row.schedule, row.off) for row in plan(said, on=on, rows=ROWS)}


def test_without_settings_the_table_holds():
    assert planned() == {"often": ("*/5 * * * *", ""), "rarely": ("", "it removes things")}


def test_a_setting_gives_another_time_switches_off_or_switches_on():
    assert planned(often="7 * * * *")["often"] == ("7 * * * *", "")
    assert planned(often="off")["often"] == ("", "STACKWARD_SCHEDULE_OFTEN is off")
    assert planned(rarely="on")["rarely"] == ("0 4 * * 6", "")
    assert planned(rarely="0 5 * * 0")["rarely"] == ("0 5 * * 0", "")


def test_with_the_schedule_off_nothing_is_on():
    assert planned(on=False, rarely="on") == {
        "often": ("", "STACKWARD_SCHEDULE is false"),
        "rarely": ("", "STACKWARD_SCHEDULE is false"),
    }


@pytest.mark.parametrize("row", WEEK, ids=lambda row: row.name)
def test_every_row_has_a_time_that_comes_and_a_default_that_can_be_set(row):
    assert next_run(row.schedule, NOW, NOW.tzinfo) > NOW
    assert parse_schedule(row.default) == row.default


def test_names_are_unique():
    assert len({row.variable for row in WEEK}) == len(WEEK)


@pytest.mark.parametrize(
    ("text", "read"), [(" ON", "on"), ("off ", "off"), ("0  2 * * *", "0 2 * * *"), ("*/5 * * * 1-5", "*/5 * * * 1-5")]
)
def test_a_setting_is_read(text, read):
    assert parse_schedule(text) == read


@pytest.mark.parametrize("text", ["", "daily", "0 2 * *", "61 * * * *", "on off"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="must be a cron expression"):
        parse_schedule(text)


@given(seed=st.text(), minutes=st.integers(0, 10000), interval=st.integers(60, 700000))
def test_a_delay_is_fixed_and_never_more_than_allowed_or_than_a_quarter_of_the_pause(seed, minutes, interval):
    limit = timedelta(minutes=minutes)
    delay = fixed_delay(limit, interval, seed)
    assert delay == fixed_delay(limit, interval, seed)
    assert timedelta(0) <= delay <= min(limit, timedelta(seconds=interval / 4))


def test_hosts_differ_in_their_delay():
    delays = {fixed_delay(timedelta(hours=1), 86400, f"host{number}/nightly") for number in range(20)}
    assert len(delays) == 20


def test_patience_is_half_the_pause_within_bounds():
    assert patience(300, []) == timedelta(minutes=15)
    assert patience(86400, []) == timedelta(hours=12)
    assert patience(604800, []) == timedelta(days=1)


def test_patience_learns_from_earlier_runs():
    minutes = [timedelta(minutes=20)] * 3
    assert patience(86400, minutes[:2]) == timedelta(hours=12)
    assert patience(86400, minutes) == timedelta(minutes=80)
    assert patience(86400, [timedelta(seconds=3)] * 10) == timedelta(hours=1)
    assert patience(86400, [timedelta(hours=5)] * 10) == timedelta(hours=12)


def test_the_longest_pause_is_what_counts():
    assert interval_seconds("0 2 * * 1-5", NOW) == 3 * 86400
