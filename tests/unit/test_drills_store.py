"""What drills proved stays known."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from stackward.core.counts import Count, Counted
from stackward.core.model import Outcome
from stackward.observe.facts import Proven
from stackward.store import Drill, Store
from stackward.tools.locks import Locks

NOON = datetime(2026, 11, 3, 12, tzinfo=UTC)
ODD = "sho\udcffp\n"


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "stackward.sqlite", now=NOON, locks=Locks(tmp_path / "locks")) as opened:
        yield opened


def test_the_newest_drill_of_each_stack_is_known(store):
    store.record_drill("shop", NOON, Outcome.OK, "data-2026-11-03", ["42 rows"])
    store.record_drill(ODD, NOON, Outcome.SKIPPED, "", [], ["Docker's socket"])
    assert store.drills() == {
        "shop": Drill("shop", NOON, Outcome.OK, "data-2026-11-03", ("42 rows",), (), NOON, "data-2026-11-03"),
        ODD: Drill(ODD, NOON, Outcome.SKIPPED, "", (), ("Docker's socket",), None, ""),
    }


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.SKIPPED])
def test_one_that_is_not_good_takes_nothing_from_what_was_proven(store, outcome):
    store.record_drill("shop", NOON, Outcome.WARN, "data-2026-11-03", ["42 rows"])
    later = NOON + timedelta(days=7)
    store.record_drill("shop", later, outcome, "data-2026-11-10", [], ["it does not start"])
    found = store.drills()["shop"]
    assert (found.at, found.outcome, found.reasons) == (later, outcome, ("it does not start",))
    assert (found.success_at, found.success_artifact) == (NOON, "data-2026-11-03")


def test_what_was_counted_and_when_stays_until_another_good_drill_counts_anew(store):
    first = Counted(NOON, (Count("db", "sh op\udcff", 42, 3), Count("db", "wiki", 0, 0)))
    store.record_drill("shop", NOON, Outcome.OK, "data-2026-11-03", counted=first)
    later = NOON + timedelta(hours=1)
    store.record_drill("shop", later, Outcome.FAILED, "data-2026-11-04", counted=Counted(NOON))
    store.record_drill("shop", later, Outcome.OK, "data-2026-11-02")
    found = store.drills()["shop"]
    assert (found.counted, found.counted_at, found.success_at) == (first, NOON, later)
    store.record_drill("shop", later, Outcome.WARN, "data-2026-11-05", counted=Counted(NOON))
    found = store.drills()["shop"]
    assert (found.counted, found.counted_at) == (Counted(NOON), later)


def test_what_an_older_version_counted_is_as_old_as_its_proof(tmp_path, store):
    store.record_drill("shop", NOON, Outcome.OK, "data-2026-11-03", counted=Counted(NOON))
    path = tmp_path / "stackward.sqlite"
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("ALTER TABLE drill DROP COLUMN counted_at")
        raw.execute("PRAGMA user_version = 5")
        raw.commit()
    with Store.open(path, now=NOON, locks=Locks(tmp_path / "locks")) as upgraded:
        assert upgraded.drills()["shop"].counted_at == NOON


def test_metrics_know_when_a_stack_was_proven(store):
    store.record_drill("shop", NOON, Outcome.OK, "data-2026-11-03")
    store.record_drill("wiki", NOON, Outcome.FAILED, "data-2026-11-03")
    assert store.facts().drills == {"shop": Proven(NOON, "data-2026-11-03")}
