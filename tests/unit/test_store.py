import sqlite3
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from stackward.core.errors import StackwardError
from stackward.core.model import Counts, JobResult, Outcome, StackResult
from stackward.store import Store, is_damaged
from stackward.tools.locks import Locks

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
ODD = "caf\udce9 \n--x"


def later(hours: float) -> datetime:
    return NOON + timedelta(hours=hours)


@pytest.fixture
def locks(tmp_path):
    return Locks(tmp_path / "locks")


@pytest.fixture
def store(tmp_path, locks):
    with Store.open(tmp_path / "s.sqlite", now=NOON, locks=locks) as opened:
        yield opened


def record(store, job, at, outcome, *parts, trigger="cli"):
    run_id = store.begin_run(job, at, trigger)
    store.end_run(run_id, at + timedelta(minutes=1), JobResult(outcome, stacks=parts))
    return run_id


def part(stack, outcome, **more):
    return StackResult(stack, outcome, **more)


def test_a_run_comes_back_as_it_was_recorded(store):
    run_id = store.begin_run("backup-data", NOON, "schedule")
    going_on = store.last_run("backup-data")
    assert going_on is not None
    assert (going_on.id, going_on.outcome, going_on.ended_at) == (run_id, None, None)
    shop = part(
        ODD, Outcome.WARN, reasons=("gone: " + ODD,), counts=Counts(files=3), standstill_seconds=0.5, artifact="d"
    )
    result = JobResult(Outcome.WARN, ("one warns",), (shop,), Counts(bytes=7), ("d", ODD), 3, {"seen": [1]})
    store.end_run(run_id, later(1), result)

    row = store.run(run_id)
    assert row is not None
    assert (row.job, row.trigger, row.started_at, row.ended_at) == ("backup-data", "schedule", NOON, later(1))
    assert (row.outcome, row.reasons, row.artifacts) == (Outcome.WARN, ("one warns",), ("d", ODD))
    assert (row.counts, row.exit_code, row.details) == (Counts(bytes=7), 3, {"seen": [1]})
    [of_stack] = store.stacks_of(run_id)
    assert (of_stack.stack, of_stack.outcome, of_stack.reasons) == (ODD, Outcome.WARN, ("gone: " + ODD,))
    assert (of_stack.counts, of_stack.standstill_seconds, of_stack.artifacts) == (Counts(files=3), 0.5, ("d",))


def test_runs_are_listed_newest_first_and_by_job_and_stack(store):
    first = record(store, "backup-data", NOON, Outcome.OK, part("a", Outcome.OK))
    second = record(store, "backup-data", later(1), Outcome.OK, part("b", Outcome.OK))
    third = record(store, "prune", later(2), Outcome.OK)

    assert [row.id for row in store.runs()] == [third, second, first]
    assert [row.id for row in store.runs("backup-data", limit=1)] == [second]
    assert [row.id for row in store.runs(stack="a")] == [first]


def test_good_runs_of_some_jobs_can_be_left_out(store):
    record(store, "health", later(0), Outcome.OK)
    record(store, "health", later(1), Outcome.FAILED, part("shop", Outcome.FAILED))
    record(store, "health", later(2), Outcome.SKIPPED)
    record(store, "nightly", later(3), Outcome.OK)
    store.begin_run("health", later(4), "schedule")
    found = [(row.job, row.outcome) for row in store.runs(unless_good=["health", "observability"])]
    assert found == [("health", None), ("nightly", Outcome.OK), ("health", Outcome.FAILED)]
    assert [row.job for row in store.runs(stack="shop", unless_good=["health"])] == ["health"]
    assert len(store.runs()) == 5


def test_old_history_of_some_jobs_can_go_alone(store):
    for job in ("health", "nightly"):
        for hour in (0, 1, 2):
            record(store, job, later(hour), Outcome.OK)
    store.forget_runs_before(later(2), ["health"])
    assert [row.started_at for row in store.runs("health")] == [later(2)]
    assert len(store.runs("nightly")) == 3


def test_success_is_ok_or_warn_and_failures_count_since_then(store):
    record(store, "backup-data", NOON, Outcome.FAILED, part("a", Outcome.FAILED))
    good = record(store, "backup-data", later(1), Outcome.WARN, part("a", Outcome.WARN), part("b", Outcome.OK))
    bad = record(store, "backup-data", later(2), Outcome.FAILED, part("a", Outcome.OK), part("b", Outcome.FAILED))

    assert store.last_success("backup-data").id == good
    assert store.last_success("backup-data", "a").id == bad
    assert store.last_success("backup-data", "b").id == good
    assert store.last_success("backup-data", "c") is None
    assert [row.id for row in store.failures_since_success("backup-data")] == [bad]
    assert [row.id for row in store.failures_since_success("backup-data", "b")] == [bad]
    assert store.failures_since_success("backup-data", "a") == []


def test_each_stack_has_its_newest_part(store):
    record(store, "backup-data", NOON, Outcome.OK, part("a", Outcome.OK), part("b", Outcome.OK))
    newer = record(store, "backup-data", later(1), Outcome.FAILED, part("b", Outcome.FAILED))

    newest = store.last_stacks("backup-data")
    assert newest["a"].outcome is Outcome.OK
    assert (newest["b"].id, newest["b"].outcome) == (newer, Outcome.FAILED)


def test_a_clock_that_was_ahead_puts_no_run_first(store):
    record(store, "backup-data", later(24 * 365), Outcome.OK, part("a", Outcome.OK))
    good = record(store, "backup-data", NOON, Outcome.OK, part("a", Outcome.OK))
    bad = record(store, "backup-data", later(1), Outcome.FAILED, part("a", Outcome.FAILED))

    assert [row.id for row in store.runs()][:2] == [bad, good]
    assert store.last_success("backup-data", "a").id == good
    assert [row.id for row in store.failures_since_success("backup-data", "a")] == [bad]
    assert store.last_stacks("backup-data")["a"].id == bad


def test_a_run_whose_process_died_is_closed_as_failed(store, locks):
    dead = store.begin_run("backup-data", NOON, "cli")
    alive = store.begin_run("verify", NOON, "cli")
    with locks.hold(alive):
        assert [row.id for row in store.close_interrupted(later(1), locks.is_free)] == [dead]

    closed, open_one = store.run(dead), store.run(alive)
    assert (closed.outcome, closed.reasons, closed.ended_at) == (Outcome.FAILED, ("interrupted",), later(1))
    assert open_one.outcome is None


def test_old_history_goes_but_what_status_needs_stays(store):
    success = record(store, "backup-data", NOON, Outcome.OK, part("a", Outcome.OK))
    old = record(store, "backup-data", later(1), Outcome.FAILED, part("a", Outcome.FAILED))
    newest = record(store, "backup-data", later(2), Outcome.FAILED, part("a", Outcome.FAILED))

    store.forget_runs_before(later(24))

    assert {row.id for row in store.runs()} == {success, newest}
    assert store.stacks_of(old) == []


def test_names_survive_byte_for_byte(store):
    store.remember_opted_in(ODD, NOON)
    store.hold(ODD, ODD, "shrank", NOON)
    store.record_verified(ODD, NOON, Outcome.FAILED, 4, [ODD])

    assert store.was_opted_in(ODD)
    assert store.opted_in() == {ODD}
    assert store.holds()[ODD].tree == ODD
    assert (store.verified()[ODD].damaged, store.verified()[ODD].stacks) == (4, {ODD})


def test_what_was_opted_in_stays_until_forgotten(store):
    assert not store.was_opted_in("a")
    store.remember_opted_in("a", NOON)
    store.remember_opted_in("a", later(1))
    assert store.was_opted_in("a")
    store.forget_opted_in("a")
    assert not store.was_opted_in("a")


def test_a_hold_stays_until_it_is_accepted_or_released(store):
    store.hold("a", "data", "empty now", NOON)
    store.hold("a", "data", "emptier", later(1))
    assert (store.holds()["a"].reason, store.holds()["a"].at) == ("emptier", NOON)
    store.accept("a", later(-1))
    assert "a" in store.holds()
    store.accept("a", later(2))
    assert store.holds() == {}
    assert store.accepted_at("a") == later(2)
    store.hold("a", "data", "again", later(3))
    store.release("a")
    assert store.holds() == {}


def test_of_what_was_made_anew_nothing_is_said_any_more(store):
    store.record_verified("data-2026-11-21", NOON, Outcome.FAILED, 2, ["a", "b"])
    store.narrow_verified("data-2026-11-21", ["b", "c"])
    assert store.verified()["data-2026-11-21"].stacks == {"b"}
    store.narrow_verified("data-2026-11-21", ["c"])
    assert store.verified() == {}
    store.record_verified("data-2026-11-21", NOON, Outcome.FAILED, 1, [""])  # whose it is nobody knows
    store.narrow_verified("data-2026-11-21", ["c"])
    assert is_damaged(store.verified()["data-2026-11-21"], "c")
    store.narrow_verified("data-2026-11-20", ["c"])


def test_damage_that_an_older_version_found_may_be_anybodys(tmp_path, locks):
    path = tmp_path / "old.sqlite"
    with Store.open(path, now=NOON, locks=locks) as store:
        store.record_verified("data-2026-11-21", NOON, Outcome.FAILED, 2, ["a"])
        store.record_verified("data-2026-11-20", NOON, Outcome.OK, 0, [])
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("ALTER TABLE verified DROP COLUMN stacks")
        raw.execute("ALTER TABLE drill DROP COLUMN counted")
        raw.execute("ALTER TABLE drill DROP COLUMN counted_at")
        raw.execute("PRAGMA user_version = 3")
        raw.commit()
    with Store.open(path, now=NOON, locks=locks) as store:
        said = store.verified()
        assert [is_damaged(said[name], "z") for name in ("data-2026-11-21", "data-2026-11-20")] == [True, False]


def test_verification_is_the_latest_said(store):
    store.record_verified("data-2026-11-21", NOON, Outcome.OK, 0, [])
    store.record_verified("data-2026-11-21", later(1), Outcome.FAILED, 2, ["a", "b"])
    verified = store.verified()["data-2026-11-21"]
    assert (verified.at, verified.outcome, verified.damaged) == (later(1), Outcome.FAILED, 2)
    store.copy_verified("data-2026-11-21", "data-2026-11-21.replaced-20261121_030000")
    store.copy_verified("data-2026-11-20", "never heard of")
    store.forget_verified("data-2026-11-21")
    assert store.verified() == {"data-2026-11-21.replaced-20261121_030000": verified}


def test_everything_is_there_after_a_reopen(tmp_path, locks):
    path = tmp_path / "s.sqlite"
    with Store.open(path, now=NOON, locks=locks) as first:
        first.set_note("k", "v")
    with Store.open(path, now=NOON, locks=locks) as second:
        assert second.note("k") == "v"
        assert second.note("other") is None
        assert second.warning == ""


@pytest.mark.parametrize("harm", ["no database at all", "torn"])
def test_a_damaged_history_is_moved_aside_and_said(tmp_path, locks, harm):
    path = tmp_path / "s.sqlite"
    with Store.open(path, now=NOON, locks=locks) as store:
        for hour in range(200):
            record(store, "backup-data", later(hour), Outcome.OK, part("a" * 200, Outcome.OK))
    if harm == "torn":
        content = bytearray(path.read_bytes())
        content[4096 : len(content) // 2] = b"\xff" * (len(content) // 2 - 4096)
        path.write_bytes(content)
    else:
        path.write_bytes(b"this is not SQLite" * 1000)

    with Store.open(path, now=NOON, locks=locks) as anew:
        assert anew.runs() == []
        assert "damaged" in anew.warning
    assert (tmp_path / "s.sqlite.damaged-20261121_120000").exists()
    with Store.open(path, now=NOON, locks=locks) as again:
        assert again.warning == ""


def test_a_history_that_somebody_holds_locked_goes_on_in_a_copy(tmp_path, locks):
    path = tmp_path / "s.sqlite"
    with Store.open(path, now=NOON, locks=locks) as store:
        store.remember_opted_in("shop", NOON)
        with closing(sqlite3.connect(path, isolation_level=None)) as somebody:
            somebody.execute("BEGIN IMMEDIATE")
            somebody.execute("INSERT INTO note VALUES ('never', 'committed')")
            store.make_writable(NOON, locks, patience_seconds=0.1)
            store.remember_opted_in("wiki", NOON)
            somebody.execute("COMMIT")
        assert store.opted_in() == {"shop", "wiki"}
        assert "goes on in a copy" in store.warning
        assert not store.is_replaced()
    with Store.open(path, now=NOON, locks=locks) as again:
        assert again.opted_in() == {"shop", "wiki"}
        assert again.note("never") is None
    assert (tmp_path / "s.sqlite.locked-20261121_120000").exists()


def test_a_history_that_is_locked_against_readers_too_begins_anew(tmp_path, locks):
    path = tmp_path / "s.sqlite"
    Store.open(path, now=NOON, locks=locks).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as somebody:
        somebody.execute("PRAGMA locking_mode = EXCLUSIVE")
        somebody.execute("INSERT INTO note VALUES ('k', 'v')")
        with Store.open(path, now=NOON, locks=locks, busy_seconds=0.1) as store:
            assert store.note("k") is None
            assert "begins anew" in store.warning
    assert (tmp_path / "s.sqlite.locked-20261121_120000").exists()


def test_a_history_that_is_only_busy_for_a_moment_stays_where_it_is(tmp_path, locks):
    path = tmp_path / "s.sqlite"
    with (
        Store.open(path, now=NOON, locks=locks) as store,
        closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        thread = threading.Thread(target=lambda: store.make_writable(NOON, locks, patience_seconds=20))
        thread.start()
        time.sleep(0.3)
        other.execute("COMMIT")
        thread.join()
        assert store.warning == ""
    assert not list(tmp_path.glob("s.sqlite.locked-*"))


def test_who_has_the_old_file_open_is_told_that_it_was_replaced(tmp_path, locks):
    path = tmp_path / "s.sqlite"
    with Store.open(path, now=NOON, locks=locks) as one, Store.open(path, now=NOON, locks=locks) as two:
        with closing(sqlite3.connect(path, isolation_level=None)) as somebody:
            somebody.execute("BEGIN IMMEDIATE")
            one.make_writable(NOON, locks, patience_seconds=0.1)
        assert (one.is_replaced(), two.is_replaced()) == (False, True)


def test_two_processes_write_in_turns(tmp_path, locks):
    path = tmp_path / "s.sqlite"
    with Store.open(path, now=NOON, locks=locks) as one, Store.open(path, now=NOON, locks=locks) as two:
        one.remember_opted_in("a", NOON)
        two.remember_opted_in("b", NOON)
        assert one.opted_in() == two.opted_in() == {"a", "b"}


def test_a_history_that_cannot_be_made_says_so(tmp_path, locks):
    (tmp_path / "s.sqlite").mkdir()
    with pytest.raises(StackwardError, match="cannot be opened"):
        Store.open(tmp_path / "s.sqlite", now=NOON, locks=locks)
