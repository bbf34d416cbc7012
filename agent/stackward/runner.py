"""Runs jobs: takes their locks, records them, and catches whatever they raise. The one place that catches everything.

A job's function gets a `RunContext` and returns a `JobResult`; a chain is a list of such steps. While a run lives, it holds
the lock named by its id: a run that began, did not end and whose lock is free was killed.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackward.core.errors import NO_ROOM, BusyError, ExitCode, Interrupted, StackwardError
from stackward.core.model import JobResult, Outcome, display
from stackward.core.progress import Silent
from stackward.store import INTERRUPTED, Store, new_run_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from stackward.core.progress import Progress
    from stackward.steps.lease import Lease
    from stackward.tools.locks import Holder, Locks

_LOG = logging.getLogger(__name__)
BY_HAND = "cli"  # what triggers the runs that somebody asks for
DRY_RUN = "dry-run"
CHANGE = "change"  # the trigger of a run that something which happened asked for

# The worst first: what a chain's exit code is when several of its steps ended badly.
_SEVERITY = (ExitCode.DAMAGED, ExitCode.REFUSED, ExitCode.FAILED, ExitCode.USAGE, ExitCode.BUSY)


@dataclass(frozen=True, slots=True, order=True)
class Resource:
    """What a run must have to itself, or may share with others that share it.

    `leased`: appliances on other hosts that back up to the same share must not have it meanwhile either.
    """

    name: str
    shared: bool = False
    leased: bool = False


# Adding to, changing or removing backups; only reading them; reading them and laying out copies beside them.
WRITES_BACKUPS = (Resource("backup-root", leased=True),)
READS_BACKUPS = (Resource("backup-root", shared=True),)
COPIES_BACKUPS = (Resource("backup-root", shared=True, leased=True),)


def of_stack(name: str) -> Resource:
    """The stack's own directories and containers, as a restore needs them."""
    return Resource(f"stack {name}")


@dataclass(frozen=True, slots=True)
class RunContext:
    """What a job is told of its run. `now` is when it began, in the zone of schedules and stamps; `trigger` why."""

    run_id: str
    now: datetime
    progress: Progress
    trigger: str = BY_HAND


@dataclass(frozen=True, slots=True)
class Step:
    """One job of a chain. It is skipped where the job `needs` ran before it in the chain and brought nothing.

    `forget_idle`: a run that had nothing to do (it ends as skipped) is not kept in the history.
    """

    job: str
    work: Callable[[RunContext], JobResult]
    resources: tuple[Resource, ...] = ()
    needs: str = ""
    forget_idle: bool = False


@dataclass(frozen=True, slots=True)
class ChainResult:
    """Each step's result in order, and what they come to."""

    steps: tuple[tuple[str, JobResult], ...]

    @property
    def outcome(self) -> Outcome:
        return Outcome.worst([result.outcome for _, result in self.steps])

    @property
    def exit_code(self) -> ExitCode:
        return worst_exit_code(exit_code(result) for _, result in self.steps)


@dataclass(frozen=True, slots=True)
class Runner:
    """The parts that every run needs. `clock` tells now in the zone of schedules.

    `quiet`: only runs that do not end well are logged; for those that come every few minutes.
    """

    store: Store
    locks: Locks
    clock: Callable[[], datetime]
    quiet: bool = False
    lease: Lease | None = None

    def execute(
        self,
        job: str,
        work: Callable[[RunContext], JobResult],
        *,
        resources: Sequence[Resource] = (),
        wait: bool = False,
        progress: Progress | None = None,
        trigger: str = BY_HAND,
        dry_run: bool = False,
        forget_idle: bool = False,
    ) -> JobResult:
        """Run `work` once it has its resources; whatever it raises becomes a failed result.

        A dry run is not recorded, nor what somebody typed wrongly.

        Raises:
            BusyError: somebody else has a resource, and `wait` is false. Nothing was begun, nothing is recorded.
            Interrupted: a signal came; the run is recorded as interrupted.
        """
        progress = progress or Silent()
        with ExitStack() as held:
            for resource in sorted(resources):
                held.enter_context(self._taken(resource, job, wait, progress, leased=resource.leased and not dry_run))
            now = self.clock()
            if dry_run:
                return _guarded(job, work, RunContext(DRY_RUN, now, progress, trigger))
            run_id = new_run_id(now)
            held.enter_context(self.locks.hold(run_id, what=job, forget=True))
            self.store.begin_run(job, now, trigger, run_id=run_id)
            if not self.quiet:
                _LOG.info("%s begins", job, extra={"job": job, "run": run_id, "trigger": trigger})
            result = JobResult(Outcome.FAILED, (INTERRUPTED,))
            try:
                result = _guarded(job, work, RunContext(run_id, now, progress, trigger))
                if forget_idle and result.outcome is Outcome.SKIPPED:
                    self.store.forget_idle(run_id, "; ".join(result.reasons))
                elif trigger == BY_HAND and result.exit_code == ExitCode.USAGE:
                    self.store.forget_run(run_id)
                else:
                    self.store.end_run(run_id, self.clock(), result)
            except Interrupted:
                # Also where the signal came while the end was being recorded: what was done is not forgotten.
                self.store.end_run(run_id, self.clock(), result)
                raise
            if not self.quiet or result.outcome in (Outcome.FAILED, Outcome.WARN):
                _log_end(job, run_id, result)
            return result

    def chain(
        self,
        steps: Sequence[Step],
        *,
        wait: bool = False,
        progress: Progress | None = None,
        trigger: str = BY_HAND,
        dry_run: bool = False,
    ) -> ChainResult:
        """Run the steps in order. A failed one does not stop those that need nothing of it.

        `wait` says whether to wait for the first step's resources; once begun, the chain waits for every other.

        Raises:
            BusyError: nothing was begun.
            Interrupted: a signal came; no further step begins.
        """
        done: dict[str, JobResult] = {}
        for step in steps:
            if step.needs in done and not brought_something(done[step.needs]):
                done[step.job] = JobResult(Outcome.SKIPPED, (f"{step.needs} failed",))
                continue
            done[step.job] = self.execute(
                step.job,
                step.work,
                resources=step.resources,
                wait=wait or bool(done),
                progress=progress,
                trigger=trigger,
                dry_run=dry_run,
                forget_idle=step.forget_idle,
            )
        return ChainResult(tuple(done.items()))

    def close_interrupted(self) -> list[str]:
        """Record as failed what was killed, and say so."""
        dead = self.store.close_interrupted(self.clock(), self.locks.is_free)
        return [f"{row.job} of {row.started_at.astimezone(self.clock().tzinfo):%F %T} was interrupted" for row in dead]

    def _taken(self, resource: Resource, job: str, wait: bool, progress: Progress, *, leased: bool) -> ExitStack:
        """The resource, held. Waiting for another appliance holds up no one here: the lock is let go meanwhile."""
        told = ""
        while True:
            with ExitStack() as taken:
                taken.enter_context(self._hold(resource, job, wait, progress))
                if self.lease is None or not leased:
                    return taken.pop_all()
                try:
                    taken.enter_context(self.lease.held(job, progress.warn))
                except BusyError as error:
                    if not wait:
                        raise
                    if told != (told := error.message):
                        progress.warn(f"waiting: {error.message}")
                else:
                    return taken.pop_all()
            self.lease.pause()

    def _hold(self, resource: Resource, job: str, wait: bool, progress: Progress) -> AbstractContextManager[None]:
        def told(holders: tuple[Holder, ...]) -> None:
            names = ", ".join(f"{holder.what} (process {holder.pid})" for holder in holders)
            progress.warn(f"waiting for {names or resource.name}")

        return self.locks.hold(resource.name, shared=resource.shared, wait=wait, what=job, on_wait=told)


def brought_something(result: JobResult) -> bool:
    """Whether a step may follow that needs this one: it ended well, or did so for at least one stack."""
    return result.outcome is not Outcome.FAILED or any(
        part.stack and part.outcome in (Outcome.OK, Outcome.WARN) for part in result.stacks
    )


def exit_code(result: JobResult) -> ExitCode:
    """The job's own code where it says more than the outcome, else 0 or 1."""
    if result.exit_code:
        return ExitCode(result.exit_code)
    return ExitCode.FAILED if result.outcome is Outcome.FAILED else ExitCode.OK


def worst_exit_code(codes: Iterable[ExitCode]) -> ExitCode:
    found = set(codes)
    return next((code for code in _SEVERITY if code in found), ExitCode.OK)


def _guarded(job: str, work: Callable[[RunContext], JobResult], context: RunContext) -> JobResult:
    try:
        return work(context)
    except StackwardError as error:
        reasons = (error.message, f"HINT: {error.hint}") if error.hint else (error.message,)
        return JobResult(Outcome.FAILED, reasons, exit_code=error.exit_code)
    except Exception as error:  # noqa: BLE001 - the promise of this module: no job's mistake ends the chain or goes unrecorded
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            where = f": {display(error.filename)}" if isinstance(error.filename, str) else ""
            return JobResult(
                Outcome.FAILED,
                (f"no space left{where}", "HINT: make room on that disk; `stackward check` shows how full it is"),
            )
        _LOG.exception("%s met what nobody expected", job, extra={"job": job, "run": context.run_id})
        what = f"{type(error).__name__}: {error}"
        return JobResult(Outcome.FAILED, (f"{what} (a bug; the traceback is in the log)",))


def _log_end(job: str, run_id: str, result: JobResult) -> None:
    level = logging.WARNING if result.outcome in (Outcome.FAILED, Outcome.WARN) else logging.INFO
    extra = {"job": job, "run": run_id, "outcome": result.outcome.value, "reasons": list(result.reasons)}
    _LOG.log(level, "%s ended %s", job, result.outcome.value, extra=extra)
