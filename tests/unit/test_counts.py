"""When counted rows prove that a database was restored."""

from datetime import UTC, datetime, timedelta

import pytest

from stackward.core.counts import Count, Counted, judge

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
BEFORE = Counted(NOON, (Count("db", "shop", 1000, 12), Count("db", "wiki", 50, 4)))
WIKI = Count("db", "wiki", 50, 4)


def judged(*counts, before=BEFORE, at=NOON):
    found = judge("shop", Counted(at, counts), before)
    return "; ".join(found.wrong), "; ".join(found.warnings)


def test_as_many_as_before_more_or_some_less_are_a_proof():
    assert judged(*BEFORE.counts) == ("", "")
    assert judged(Count("db", "shop", 150, 9), WIKI, Count("db", "new", 0, 0)) == ("", "")
    assert judged(Count("db", "shop", 1, 1), before=None) == ("", "")


@pytest.mark.parametrize("tables", [0, 7])
def test_not_a_single_row_proves_nothing_also_the_first_time(tables):
    wrong, _ = judged(Count("db", "shop", 0, tables), Count("db", "wiki", 0, 0), before=None)
    assert wrong.startswith(f"db: 0 rows in {tables} tables in all its databases prove nothing")
    assert "stackward.probe" in wrong


def test_each_database_service_has_to_prove_itself():
    wrong, _ = judged(Count("db", "shop", 5, 5), Count("other", "x", 0, 2), before=None)
    assert "other: 0 rows in 2 tables" in wrong
    assert "db:" not in wrong


@pytest.mark.parametrize("now", [Count("db", "shop", 0, 12), Count("db", "shop", 9, 12), Count("db", "shop", 900, 5)])
def test_a_database_that_lost_nearly_all_rows_or_most_tables_fails_and_both_figures_are_said(now):
    wrong, _ = judged(now, WIKI)
    assert f"{now}, where the last proof had 1000 rows in 12 tables" in wrong
    assert "stackward accept shop" in wrong


def test_a_database_that_is_gone_fails():
    wrong, _ = judged(WIKI)
    assert "there is no database shop; the last proof had 1000 rows in 12 tables" in wrong


@pytest.mark.parametrize("now", [Count("db", "shop", 99, 12), Count("db", "shop", 10, 9), Count("db", "shop", 1000, 8)])
def test_far_fewer_rows_or_some_tables_less_are_a_warning_and_no_measure_for_the_next(now):
    wiki = Count("db", "wiki", 60, 4)
    found = judge("shop", Counted(NOON, (now, wiki)), BEFORE)
    assert found.wrong == ()
    assert found.warnings == (
        f"db: {now}, where the last proof had 1000 rows in 12 tables (if this is right: stackward accept shop)",
    )
    assert found.measure == (BEFORE.counts[0], wiki)


def test_what_is_well_is_the_measure_for_the_next():
    fewer = Count("db", "shop", 100, 9)
    assert judge("shop", Counted(NOON, (fewer, WIKI)), BEFORE).measure == (fewer, WIKI)
    few = Count("db", "shop", 1, 1)
    assert judge("shop", Counted(NOON, (few,)), None).measure == (few,)


def test_data_that_is_older_than_the_last_proof_is_not_held_against_it():
    assert judged(Count("db", "shop", 1, 1), at=NOON - timedelta(days=1)) == ("", "")


def test_a_service_that_is_not_counted_any_more_is_not_missed():
    assert judged() == ("", "")
    assert judged(Count("other", "shop", 1, 1)) == ("", "")
