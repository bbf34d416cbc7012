from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackward.core.model import Keep
from stackward.core.retention import Item, plan

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 21, 2, 0, tzinfo=BERLIN)  # a Saturday
GRID = Keep(daily=7, weekly=4)


def days_ago(days: float, **more) -> Item:
    when = NOW - timedelta(days=days)
    return Item(when.isoformat(), when, **more)


def kept(items, keep, now=NOW):
    return [decision.item for decision in plan(items, keep, now) if decision.keep]


def reasons(items, keep, item):
    return next(decision.reasons for decision in plan(items, keep, NOW) if decision.item == item)


def test_a_number_of_days_counts_calendar_days():
    late, early = (Item(hour, datetime(2026, 11, 14, int(hour), 59, tzinfo=BERLIN)) for hour in ("23", "00"))
    older = Item("older", datetime(2026, 11, 13, 23, 59, tzinfo=BERLIN))
    assert kept([days_ago(1), late, early, older], Keep(days=7)) == [days_ago(1), late, early]


def test_the_zone_says_which_day_it_was():
    # 23:30 UTC on the 13th is the 14th in Berlin.
    item = Item("x", datetime(2026, 11, 13, 23, 30, tzinfo=UTC))
    assert item in kept([days_ago(0), item], Keep(days=7))
    assert item not in [d.item for d in plan([days_ago(0), item], Keep(days=7), NOW, UTC) if d.keep]


def test_the_grid_keeps_the_newest_of_each_recent_day_week_month_and_year():
    nightly = [days_ago(days) for days in range(800)]
    ages = [(NOW - item.when).days for item in kept(nightly, Keep(daily=3, weekly=3, monthly=3, yearly=3))]
    # Days 0, 1, 2; weeks end on Sundays (6, 13 days ago); months on 10-31, 09-30; years on 2025-12-31, 2024-12-31.
    assert ages == [0, 1, 2, 6, 13, 21, 52, 325, 690]


def test_several_a_day_leave_the_newest_of_the_day_and_hourly_the_newest_of_the_hour():
    noon, evening = days_ago(0.5), days_ago(0.1)  # of the 20th
    assert kept([noon, evening, days_ago(0)], Keep(daily=2)) == [evening, days_ago(0)]
    minutes = [Item(str(m), NOW - timedelta(minutes=m)) for m in (0, 1, 59, 61, 130)]
    assert [item.key for item in kept(minutes, Keep(hourly=2))] == ["0", "1"]


def test_an_hour_that_autumn_repeats_is_two():
    now = datetime(2026, 10, 25, 12, tzinfo=UTC)
    twice = [Item(str(hour), datetime(2026, 10, 25, hour, 30, tzinfo=UTC)) for hour in (0, 1)]
    assert len([d for d in plan(twice, Keep(hourly=5), now, BERLIN) if d.keep]) == 2


def test_days_without_a_backup_take_no_slot():
    items = [days_ago(0), days_ago(10), days_ago(20), days_ago(30)]
    assert kept(items, Keep(daily=3)) == items[:3]


def test_iso_weeks_across_a_new_year_are_one_week():
    now = datetime(2027, 1, 10, tzinfo=BERLIN)
    items = [Item(day, datetime.fromisoformat(day).replace(tzinfo=BERLIN)) for day in ("2026-12-31", "2027-01-02")]
    assert [item.key for item in kept(items, Keep(weekly=5), now)] == ["2027-01-02"]


def test_a_damaged_one_fills_no_slot():
    good, damaged, before = days_ago(0.2), days_ago(0.1, good=False), days_ago(1.2)
    assert kept([damaged, good, before], Keep(daily=1)) == [good]
    assert kept([damaged, good, before], Keep(daily=2)) == [good, before]


def test_a_damaged_one_stays_while_its_period_has_nothing_better():
    today, damaged, before = days_ago(0), days_ago(1, good=False), days_ago(2)
    items = [today, damaged, before, days_ago(3)]
    assert kept(items, Keep(daily=2)) == [today, damaged, before]
    assert "damaged, but the only one of 2026-11-20" in reasons(items, Keep(daily=2), damaged)


@pytest.mark.parametrize("keep", [Keep(days=1), Keep(daily=1), GRID])
def test_the_last_good_one_stays_however_old(keep):
    old, older = days_ago(900), days_ago(901)
    items = [days_ago(0.01, good=False), old, older]
    assert old in kept(items, keep)
    assert "the last good one" in reasons(items, keep, old)


def test_nothing_goes_while_none_is_good():
    items = [days_ago(days, good=False) for days in range(0, 900, 100)]
    assert kept(items, Keep(daily=1)) == items


def test_one_dated_in_the_future_stays_and_takes_no_slot():
    future, today = days_ago(-3), days_ago(0)
    items = [future, today, days_ago(1)]
    assert kept(items, Keep(daily=1)) == [future, today]
    assert reasons(items, Keep(daily=1), future) == ("it is dated in the future: is the clock right?",)


def test_held_and_pinned_ones_stay_and_say_for_whom():
    held, pinned = days_ago(500, held="shop shrank"), days_ago(501, pinned="parent for nas")
    items = [days_ago(0), held, pinned]
    assert kept(items, Keep(days=1)) == items
    assert reasons(items, Keep(days=1), held) == ("held: shop shrank",)
    assert reasons(items, Keep(days=1), pinned) == ("pinned: parent for nas",)


def test_without_a_rule_everything_stays():
    items = [days_ago(days) for days in (0, 400, 800)]
    assert kept(items, Keep()) == items
    assert reasons(items, Keep(), items[2]) == ("there is no rule for how long to keep it",)


def test_both_rules_together_keep_what_either_keeps():
    items = [days_ago(days) for days in range(60)]
    both = kept(items, Keep(days=3, monthly=2))
    assert both == [item for item in items if item in kept(items, Keep(days=3)) or item in kept(items, Keep(monthly=2))]


def test_what_goes_says_which_rule_let_it_go_and_whether_it_is_damaged():
    old, bad = days_ago(90), days_ago(90.1, good=False)
    items = [days_ago(0), *(days_ago(7 * weeks) for weeks in range(1, 5)), old, bad]
    assert reasons(items, Keep(weekly=4), old) == ("older than weekly=4 keeps",)
    assert reasons(items, Keep(weekly=4), bad) == ("older than weekly=4 keeps", "it is damaged")


def test_times_without_a_zone_are_refused():
    with pytest.raises(ValueError, match="zone"):
        plan([Item("x", datetime(2026, 1, 1))], GRID, NOW)
    with pytest.raises(ValueError, match="zone"):
        plan([], GRID, datetime(2026, 1, 1))


_items = st.lists(
    st.builds(
        lambda minutes, good, pinned, offset: Item(
            f"{minutes}", (NOW - timedelta(minutes=minutes)).astimezone(timezone(timedelta(hours=offset))), good, pinned
        ),
        st.integers(-5000, 60 * 24 * 800),
        st.sampled_from([True, True, True, False]),
        st.sampled_from(["", "", "", "nas"]),
        st.integers(-12, 12),
    ),
    max_size=40,
    unique_by=lambda item: item.key,
)
_count = st.integers(0, 4)
_keep = st.builds(
    Keep,
    days=st.none() | st.integers(1, 400),
    daily=_count,
    weekly=_count,
    monthly=_count,
    yearly=_count,
    hourly=_count,
)


@given(_items, _keep)
def test_whatever_the_rule_the_promises_hold(items, keep):
    decisions = plan(items, keep, NOW)
    assert [decision.item for decision in decisions] == items
    assert all(decision.reasons for decision in decisions)
    gone = [decision.item for decision in decisions if not decision.keep]
    stay = [decision.item for decision in decisions if decision.keep]
    assert not [item for item in gone if item.pinned or item.when > NOW]
    good = [item for item in items if item.good and item.when <= NOW]
    if good:
        assert max(good, key=lambda item: item.when) in stay
    else:
        assert gone == []


@given(_items, _keep)
def test_pruning_twice_removes_nothing_more_and_the_order_does_not_matter(items, keep):
    stay = kept(items, keep)
    assert kept(stay, keep) == stay
    assert set(kept(list(reversed(items)), keep)) == set(stay)


def test_a_year_of_nights_each_pruned_never_has_too_few_or_too_many():
    keep = Keep(daily=7, weekly=4, monthly=6)
    items: list[Item] = []
    start = datetime(2026, 1, 1, 1, 30, tzinfo=UTC)
    for night in range(400):
        now = (start + timedelta(days=night)).astimezone(BERLIN)
        items = kept([*items, Item(str(night), now)], keep, now)
        assert len(items) <= 7 + 4 + 6
    ages = [(now - item.when).days for item in items]
    assert set(range(7)) <= set(ages)
    assert max(ages) > 120
