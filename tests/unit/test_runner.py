import errno
import logging
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from stackward.core.errors import (
    BusyError,
    DamageError,
    ExitCode,
    Interrupted,
    RefusedError,
    SettingsError,
    StackwardError,
)
from stackward.core.model import JobResult, Outcome, StackResult
from stackward.runner import READS_BACKUPS, WRITES_BACKUPS, Runner, Step, exit_code
from stackward.store import Store
from stackward.tools.locks import Locks

OK = JobResult(Outcome.OK)
FAILED = JobResult(Outcome.FAILED, ("disk full",))


@pytest.fixture
def runner(tmp_path):
    locks = Locks(tmp_path / "locks")
    seconds = count()

    def clock():
        return datetime(2026, 11, 21, 12, 0, next(seconds), tzinfo=UTC)

    with Store.open(tmp_path / "s.sqlite", now=clock(), locks=locks) as store:
        yield Runner(store, locks, clock)


def raising(error):
    def work(_context):
        raise error

    return work


def test_a_run_is_recorded_from_its_begin(runner):
    def work(context):
        row = runner.store.run(context.run_id)
        assert (row.outcome, row.started_at) == (None, context.now)
        assert not runner.locks.is_free(context.run_id)
        return JobResult(Outcome.WARN, ("one warns",))

    result = runner.execute("backup-data", work, trigger="schedule")

    row = runner.store.last_run("backup-data")
    assert result.outcome is row.outcome is Outcome.WARN
    assert (row.trigger, row.reasons) == ("schedule", ("one warns",))
    assert row.ended_at > row.started_at


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StackwardError("no", hint="do"), ExitCode.FAILED),
        (RefusedError("no", hint="do"), ExitCode.REFUSED),
        (DamageError("no", hint="do"), ExitCode.DAMAGED),
    ],
)
def test_an_error_of_ours_becomes_a_failed_run_with_its_hint_and_code(runner, error, code):
    result = runner.execute("verify", raising(error))

    assert (result.outcome, result.reasons) == (Outcome.FAILED, ("no", "HINT: do"))
    assert exit_code(result) == code
    assert runner.store.last_run("verify").outcome is Outcome.FAILED


def test_what_somebody_typed_wrongly_is_no_run_and_what_the_schedule_cannot_do_is_one(runner):
    for trigger in ("cli", "schedule"):
        result = runner.execute("verify", raising(SettingsError("no such backup")), trigger=trigger)
        assert (result.outcome, exit_code(result)) == (Outcome.FAILED, ExitCode.USAGE)

    assert [row.trigger for row in runner.store.runs("verify")] == ["schedule"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_no_bug(runner, caplog, number):
    result = runner.execute("verify", raising(OSError(number, "full", "/backup/file")))

    assert (result.outcome, result.reasons[0]) == (Outcome.FAILED, "no space left: /backup/file")
    assert result.reasons[1].startswith("HINT: make room")
    assert "Traceback" not in caplog.text


def test_a_bug_becomes_a_failed_run_and_its_traceback_is_logged(runner, caplog):
    with caplog.at_level(logging.ERROR):
        result = runner.execute("verify", raising(ZeroDivisionError("oops")))

    assert exit_code(result) == ExitCode.FAILED
    assert "ZeroDivisionError: oops" in result.reasons[0]
    assert runner.store.last_run("verify").reasons == result.reasons
    assert "Traceback" in caplog.text


def test_a_job_with_nothing_to_do_leaves_only_that_it_looked(runner):
    outcome = [JobResult(Outcome.SKIPPED, ("nobody to ask",))]
    step = Step("observability", lambda _: outcome[0], forget_idle=True)

    began = runner.clock()
    runner.chain([step])
    assert runner.store.runs() == []
    assert runner.store.idle("observability") == "nobody to ask"
    assert runner.store.last_begun("observability", runner.clock()) >= began
    assert runner.store.last_begun("observability", began - timedelta(hours=1)) is None

    outcome[0] = OK
    runner.chain([step])
    assert [row.outcome for row in runner.store.runs()] == [Outcome.OK]
    assert runner.store.idle("observability") == ""


def test_an_interrupted_run_is_recorded_and_goes_on_unwinding(runner):
    with pytest.raises(Interrupted):
        runner.execute("verify", raising(Interrupted("SIGTERM")))

    row = runner.store.last_run("verify")
    assert (row.outcome, row.reasons) == (Outcome.FAILED, ("interrupted",))
    assert runner.locks.is_free("backup-root")


def test_who_comes_second_is_told_and_nothing_is_recorded(runner):
    def second(_context):
        with pytest.raises(BusyError, match="in use by backup-data"):
            runner.execute("prune", lambda _: OK, resources=WRITES_BACKUPS)
        return OK

    assert runner.execute("backup-data", second, resources=WRITES_BACKUPS) == OK
    assert runner.store.runs("prune") == []


def test_readers_share_the_backups(runner):
    def inner(_context):
        return runner.execute("verify", lambda _: OK, resources=READS_BACKUPS)

    assert runner.execute("restore", inner, resources=READS_BACKUPS) == OK


def test_a_dry_run_takes_its_turn_but_leaves_no_trace(runner):
    assert runner.execute("prune", lambda _: OK, resources=WRITES_BACKUPS, dry_run=True) == OK
    assert runner.store.runs() == []


def test_a_failed_step_stops_only_what_needs_it(runner):
    result = runner.chain(
        [
            Step("backup-config", raising(StackwardError("no"))),
            Step("backup-data", lambda _: FAILED),
            Step("verify", lambda _: OK),
            Step("prune", lambda _: OK, needs="backup-data"),
        ]
    )

    outcomes = {job: step.outcome.value for job, step in result.steps}
    assert outcomes == {"backup-config": "failed", "backup-data": "failed", "verify": "ok", "prune": "skipped"}
    assert result.exit_code == ExitCode.FAILED
    assert result.outcome is Outcome.FAILED
    assert runner.store.runs("prune") == []


def test_one_good_stack_is_enough_for_the_next_step(runner):
    partly = JobResult(Outcome.FAILED, stacks=(StackResult("a", Outcome.FAILED), StackResult("b", Outcome.OK)))
    result = runner.chain([Step("backup-data", lambda _: partly), Step("prune", lambda _: OK, needs="backup-data")])

    assert dict(result.steps)["prune"].outcome is Outcome.OK
    assert result.exit_code == ExitCode.FAILED


@pytest.mark.parametrize(
    ("codes", "worst"),
    [((0, 0), 0), ((0, 1), 1), ((1, 4), 4), ((4, 3, 1), 3)],
)
def test_the_chains_exit_code_is_its_worst_steps(runner, codes, worst):
    steps = [
        Step(f"job-{number}", lambda _, code=code: JobResult(Outcome.FAILED if code else Outcome.OK, exit_code=code))
        for number, code in enumerate(codes)
    ]
    assert runner.chain(steps).exit_code == worst


def test_a_chain_that_is_busy_at_its_first_step_begins_nothing(runner):
    def second(_context):
        with pytest.raises(BusyError):
            runner.chain([Step("prune", lambda _: OK, WRITES_BACKUPS), Step("verify", lambda _: OK)])
        return OK

    runner.execute("backup-data", second, resources=WRITES_BACKUPS)
    assert [row.job for row in runner.store.runs()] == ["backup-data"]


def test_what_was_killed_is_closed_and_named(runner):
    runner.store.begin_run("backup-data", datetime(2026, 11, 21, 2, tzinfo=UTC), "schedule")
    assert runner.close_interrupted() == ["backup-data of 2026-11-21 02:00:00 was interrupted"]
    assert runner.close_interrupted() == []


def test_a_signal_while_the_end_is_recorded_does_not_lose_the_result(runner):
    class Once:
        """A clock that is interrupted when it tells the end."""

        ticks = 0

        def __call__(self):
            self.ticks += 1
            if self.ticks == 2:
                raise Interrupted("SIGTERM")
            return runner.clock()

    with pytest.raises(Interrupted):
        Runner(runner.store, runner.locks, Once()).execute("backup-data", lambda _: OK)
    assert runner.store.last_run("backup-data").outcome is Outcome.OK
