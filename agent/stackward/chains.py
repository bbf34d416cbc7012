"""The chains: which jobs follow each other, on which day, and what is tried again. Data for the runner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackward.core.errors import StackwardError
from stackward.core.model import JobResult, Outcome
from stackward.core.retries import Failure, next_retry
from stackward.core.schedule import latest_due
from stackward.jobs import backup_config, backup_data, prune, verify
from stackward.runner import READS_BACKUPS, WRITES_BACKUPS, RunContext, Step
from stackward.steps import kept

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from stackward.store import RunRow, Store
    from stackward.wiring import Appliance

SCHEDULED = "schedule"
RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a backup chain is to do. `stacks` are the only ones whose data is backed up; none named means all.

    `full_scan`: every file is compared, also where the file system could say what has changed.
    """

    config: bool = True
    data: bool = True
    stacks: tuple[str, ...] = ()
    verify: str = ""  # "new" or "everything"
    prune: bool = False
    full_scan: bool = False


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of the week; `schedule` is a cron expression in local time."""

    name: str
    schedule: str
    summary: str
    wanted: Wanted


WEEK = (
    Chain(
        "nightly",
        "0 2 * * *",
        "backup-config, backup-data, verify what is new, prune",
        Wanted(verify="new", prune=True),
    ),
    Chain(
        "weekly",
        "0 3 * * 0",
        "the same with a full scan, and verify everything kept",
        Wanted(verify="everything", prune=True, full_scan=True),
    ),
)


def named(name: str) -> Chain:
    """Raises KeyError."""
    return {chain.name: chain for chain in WEEK}[name]


def due(store: Store, since: datetime, now: datetime, zone: ZoneInfo) -> list[tuple[datetime, Chain]]:
    """The chains whose time came after they last began (or after `since`, for one that never did), earliest first.

    However often a chain was missed, it is due once. Runs that seem to be of the future (the clock was wrong then)
    count for nothing.
    """
    found = []
    for chain in WEEK:
        last = next((row for row in store.runs(chain.name) if row.started_at <= now), None)
        at = latest_due(chain.schedule, max(last.started_at, since) if last else since, now, zone)
        if at is not None:
            found.append((at, chain))
    return sorted(found, key=lambda one: one[0])


def steps(appliance: Appliance, wanted: Wanted, *, dry_run: bool = False) -> list[Step]:
    """The jobs that do what is wanted, in their order."""

    def config(context: RunContext) -> JobResult:
        return backup_config.run(
            settings=appliance.settings,
            discovery_stacks=appliance.discovery.stacks,
            now=context.now,
            progress=context.progress,
            dry_run=dry_run,
        )

    def data(context: RunContext) -> JobResult:
        if not dry_run:
            _tidy(appliance, context)
        return backup_data.run(
            settings=appliance.settings,
            store=appliance.store,
            docker=appliance.docker_or_none,
            undo=appliance.undo,
            stacks=appliance.discover().stacks,  # whoever waited for a lock sees the containers of now
            only=wanted.stacks,
            full_scan=wanted.full_scan,
            now=context.now,
            clock=appliance.now,
            run_id=context.run_id,
            progress=context.progress,
            dry_run=dry_run,
        )

    def check(context: RunContext) -> JobResult:
        return verify.run(
            settings=appliance.settings,
            store=appliance.store,
            everything=wanted.verify == "everything",
            now=context.now,
            progress=context.progress,
        )

    def retain(context: RunContext) -> JobResult:
        return prune.run(
            settings=appliance.settings,
            store=appliance.store,
            discovery_stacks=appliance.discovery.stacks,
            now=context.now,
            run_id=context.run_id,
            progress=context.progress,
            dry_run=dry_run,
        )

    chosen = (
        (wanted.config, Step("backup-config", config, WRITES_BACKUPS)),
        (wanted.data, Step("backup-data", data, WRITES_BACKUPS)),
        (bool(wanted.verify) and not dry_run, Step("verify", check, READS_BACKUPS)),
        (wanted.prune, Step("prune", retain, WRITES_BACKUPS, needs="backup-data")),
    )
    return [step for yes, step in chosen if yes]


def _tidy(appliance: Appliance, context: RunContext) -> None:
    """Remove what killed runs left in Docker, and what restores kept for a week. No other run uses backups now."""
    try:
        for what in kept.expire(appliance.settings.state_dir / "kept", context.now):
            context.progress.step(f"removing what was kept for a week: {what}")
        if appliance.docker_or_none is not None:
            appliance.docker_or_none.remove_helpers()
    except (StackwardError, OSError) as error:
        context.progress.warn(f"tidying up failed: {error}")


@dataclass(frozen=True, slots=True)
class Due:
    """What failed when it was scheduled and is to be tried again: the configuration, all data, or some stacks' data."""

    config: bool = False
    all_data: bool = False
    stacks: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.config or self.all_data or bool(self.stacks)

    @property
    def wanted(self) -> Wanted:
        return Wanted(
            config=self.config,
            data=self.all_data or bool(self.stacks),
            stacks=() if self.all_data else self.stacks,
            verify="new" if self else "",
        )


def due_retries(store: Store, now: datetime) -> Due:
    """What is to be tried again by now."""

    def is_due(failures: Sequence[RunRow]) -> bool:
        at = next_retry([Failure(row.trigger, row.ended_at) for row in failures if row.ended_at is not None])
        return at is not None and at <= now

    stacks = [
        stack
        for stack, row in store.last_stacks("backup-data").items()
        if stack and row.outcome is Outcome.FAILED and is_due(store.failures_since_success("backup-data", stack))
    ]
    return Due(
        config=is_due(_failed_as_a_whole(store, "backup-config")),
        all_data=is_due(_failed_as_a_whole(store, "backup-data")),
        stacks=tuple(sorted(stacks)),
    )


def _failed_as_a_whole(store: Store, job: str) -> list[RunRow]:
    """The newest runs of `job`, up to the first that did something for any stack or did not fail."""
    failed = []
    for row in store.runs(job, limit=10):
        if row.outcome is not Outcome.FAILED or any(part.stack for part in store.stacks_of(row.id)):
            break
        failed.append(row)
    return failed
