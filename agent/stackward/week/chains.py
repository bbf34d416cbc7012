"""What can be run by name: jobs, and the chains in which they follow each other. Data for the runner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackward.core import week
from stackward.core.errors import StackwardError
from stackward.core.model import JobResult, Outcome
from stackward.jobs import backup_config, backup_data, prune, verify
from stackward.runner import READS_BACKUPS, WRITES_BACKUPS, ChainResult, RunContext, Step
from stackward.steps.restore import kept
from stackward.week.chores import CHORES

if TYPE_CHECKING:
    from stackward.core.progress import Progress
    from stackward.wiring import Appliance

# What a run was begun by, beside "cli". A retry is a chain, too: what of it is due is known only when it begins.
SCHEDULED = "schedule"
RETRY = "retry"
# The lanes of those that would wait for each other.
BACKUPS = "backups"
VOLUME = "volume"


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


CHAINS = {
    "nightly": Wanted(verify="new", prune=True),
    "weekly": Wanted(verify="everything", prune=True, full_scan=True),
}
# Their parts, by themselves.
_PARTS = {
    "backup-config": Wanted(data=False),
    "backup-data": Wanted(config=False),
    "verify": Wanted(config=False, data=False, verify="new"),
    "prune": Wanted(config=False, data=False, prune=True),
}

# What the daemon runs within itself.
FREQUENT = frozenset(row.name for row in week.WEEK if row.frequent)


def names() -> list[str]:
    """Everything that can be run by its name, `retry` left out."""
    return [*CHAINS, *_PARTS, *CHORES]


def lane_of(name: str) -> str:
    """Jobs and chains of one lane are run one after the other by the daemon, those of different ones side by side."""
    if name in ("snapshot", "staging"):
        return VOLUME
    return BACKUPS if name in CHAINS or name in _PARTS or name == RETRY else name


def steps_of(appliance: Appliance, name: str) -> list[Step]:
    """The steps of a chain, or the one step of a job. Raises KeyError."""
    if name in CHORES:
        return [CHORES[name](appliance)]
    return steps(appliance, CHAINS[name] if name in CHAINS else _PARTS[name])


def run(appliance: Appliance, name: str, *, wait: bool, trigger: str, progress: Progress) -> ChainResult:
    """Run a chain or job, now. That a chain ran is recorded under its own name, too: the schedule goes by that.

    Raises as `Runner.chain`.
    """
    if name not in CHAINS:
        return appliance.runner.chain(steps_of(appliance, name), wait=wait, progress=progress, trigger=trigger)
    ended: list[ChainResult] = []

    def work(_context: RunContext) -> JobResult:
        if not any(stack.opted_in for stack in appliance.discovery.stacks):
            return JobResult(Outcome.SKIPPED, ("no stack is opted in: run `stackward init`",))
        result = appliance.runner.chain(steps_of(appliance, name), wait=wait, progress=progress, trigger=trigger)
        ended.append(result)
        reasons = tuple(f"{job}: {step.outcome}" for job, step in result.steps if step.outcome is not Outcome.OK)
        return JobResult(result.outcome, reasons, exit_code=result.exit_code)

    whole = appliance.runner.execute(name, work, wait=wait, progress=progress, trigger=trigger)
    return ended[0] if ended else ChainResult(((name, whole),))


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

    chosen = (
        (wanted.config, Step("backup-config", config, WRITES_BACKUPS)),
        (wanted.data, Step("backup-data", data, WRITES_BACKUPS)),
        (bool(wanted.verify) and not dry_run, Step("verify", check, READS_BACKUPS)),
        (wanted.prune, prune_step(appliance, dry_run=dry_run)),
    )
    return [step for yes, step in chosen if yes]


def prune_step(appliance: Appliance, *, dry_run: bool = False, gone: bool = False, replaced: bool = False) -> Step:
    """Retention; `gone`: also for stacks that are no longer there; `replaced`: also what was replaced just now."""

    def work(context: RunContext) -> JobResult:
        return prune.run(
            settings=appliance.settings,
            store=appliance.store,
            discovery_stacks=appliance.discovery.stacks,
            now=context.now,
            run_id=context.run_id,
            progress=context.progress,
            dry_run=dry_run,
            gone=gone,
            replaced=replaced,
        )

    return Step("prune", work, WRITES_BACKUPS, needs="backup-data")


def _tidy(appliance: Appliance, context: RunContext) -> None:
    """Remove what killed runs left in Docker, and what restores kept for a week. No other run uses backups now."""
    try:
        for what in kept.expire(appliance.settings.state_dir / "kept", context.now).gone:
            context.progress.step(f"removing what was kept for a week: {what}")
        if appliance.docker_or_none is not None:
            appliance.docker_or_none.remove_helpers()
    except (StackwardError, OSError) as error:
        context.progress.warn(f"tidying up failed: {error}")
