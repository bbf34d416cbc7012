"""backup-data: copies every opted-in stack's trees into the day's backup, and publishes it.

The stack is the unit: one that fails leaves the others alone, and keeps in the day what a run earlier that day made of it. What
is listed is never written into; a run that is killed leaves an unlisted directory, which the next one removes.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from stackward import __version__
from stackward.config import Settings
from stackward.core import artifacts
from stackward.core.errors import Interrupted, StackwardError
from stackward.core.index import Index, StackEntry
from stackward.core.model import Counts, JobResult, Outcome, Stack, StackResult, display
from stackward.core.progress import Progress
from stackward.steps import backup_root
from stackward.steps.appliance_id import owner
from stackward.steps.backup import backup_plan, copying, day_plan, sources
from stackward.steps.backup import day as days
from stackward.steps.backup.stack_backup import LostTreeError, Means, Part, back_up
from stackward.steps.undo import Undo
from stackward.store import Store
from stackward.tools import filesystem
from stackward.tools.docker import Docker


@dataclass(slots=True)
class _Run:
    """What has been made so far. `snapshots` are the names of the sources' snapshots that the next run will want."""

    snapshots: set[str]
    parts: dict[str, Part] = field(default_factory=dict)
    results: list[StackResult] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def run(
    *,
    settings: Settings,
    store: Store,
    docker: Docker | None,
    undo: Undo,
    stacks: Sequence[Stack],
    only: Sequence[str] = (),
    full_scan: bool = False,
    now: datetime,
    clock: Callable[[], datetime],
    run_id: str,
    progress: Progress,
    dry_run: bool = False,
) -> JobResult:
    """Back up the opted-in stacks, or those that `only` names (opted in or not).

    Raises:
        SettingsError: `only` names a stack that does not exist.
        RefusedError: BACKUP_ROOT is not the disk it was, or has no room.
    """
    if dry_run:
        backup_root.require(settings)
        return _described(day_plan.make(settings, store, stacks, only, now), settings, full_scan=full_scan)
    backup_root.claim(settings, now)
    backup_root.clean_incoming(settings)
    plan = day_plan.make(settings, store, stacks, only, now)
    for stack in plan.make:
        if stack.opted_in:
            store.remember_opted_in(stack.name, now)
    done = _Run(_snapshots_of(plan.newest.values()), results=list(plan.skip))
    if plan.make:
        _act(settings, store, docker, undo, plan, done, full_scan, now, clock, run_id, progress)
    return _result(plan, done)


def _act(
    settings: Settings,
    store: Store,
    docker: Docker | None,
    undo: Undo,
    plan: day_plan.Plan,
    done: _Run,
    full_scan: bool,
    now: datetime,
    clock: Callable[[], datetime],
    run_id: str,
    progress: Progress,
) -> None:
    day = days.begin(settings.backup_root, plan.name, run_id, plan.day_base, owner=owner(settings))
    try:
        with ExitStack() as held:
            table = filesystem.mounts()
            home = None
            needed = any(sources.any_snapshotted(stack.covered_trees, settings.volume, table) for stack in plan.make)
            if needed or sources.has_home(settings.volume):  # also to remove what a stack that is gone has left
                home = held.enter_context(sources.snapshots_home(settings.volume, done.snapshots))
            means = Means(settings, docker, undo, table, home, full_scan, run_id, clock, progress)
            means.reach("data-incoming")
            _discard_strangers(day, plan)
            for stack in plan.make:
                _back_up_one(means, store, plan, stack, day, done)
            if done.parts:
                _publish(means, store, plan, day, done, now)
            else:
                day.abandon()
    except (StackwardError, OSError):
        day.abandon()
        raise


def _discard_strangers(day: days.Day, plan: day_plan.Plan) -> None:
    """A day that began as a snapshot holds what the last one held: only what this one will list may stay."""
    if not day.subvolume or plan.day_base is None:
        return
    index = days.read_index(plan.day_base)
    for name, entry in (index.stacks if index else {}).items():
        if name in {stack.name for stack in plan.make}:
            current = {str(tree.artifact_path) for s in plan.make if s.name == name for tree in s.covered_trees}
            for prefix in set(entry.prefixes) - current:
                day.discard(prefix)
        elif name not in plan.carried or plan.day_base.name != plan.name:
            days.discard_stack(day, entry)


def _back_up_one(means: Means, store: Store, plan: day_plan.Plan, stack: Stack, day: days.Day, done: _Run) -> None:
    last = plan.last.get(stack.name)
    accepted_at = store.accepted_at(stack.name)
    accepted = last is not None and accepted_at is not None and accepted_at > datetime.fromisoformat(last.at)
    try:
        part = back_up(means, stack, day, plan.bases.get(stack.name), last, accepted=accepted)
    except Interrupted:
        raise
    except (StackwardError, OSError) as error:
        if isinstance(error, LostTreeError):
            store.hold(stack.name, str(error.tree.path), error.why, means.now().astimezone(UTC))
        reason = error.message if isinstance(error, StackwardError) else str(error)
        means.progress.warn(f"{display(stack.name)} failed: {reason}")
        told = _told(reason, getattr(error, "hint", ""))
        done.results.append(StackResult(stack.name, Outcome.FAILED, told))
        _restore_part(plan, stack.name, stack, day)
        return
    store.release(stack.name)
    done.parts[stack.name] = part
    reasons = (*part.warnings, *(line for problem in stack.problems for line in _told(problem.message, problem.hint)))
    outcome = Outcome.WARN if reasons else Outcome.OK
    if not stack.resolved:
        outcome = Outcome.FAILED
        reasons = (*reasons, "its compose file cannot be read: what was known of it is copied, and perhaps not all")
    done.results.append(
        StackResult(stack.name, outcome, reasons, part.counts, part.entry.standstill_seconds, plan.name)
    )


def _told(message: str, hint: str) -> tuple[str, ...]:
    return (message, f"HINT: {hint}") if hint else (message,)


def _restore_part(plan: day_plan.Plan, name: str, stack: Stack, day: days.Day) -> None:
    """The day's part of a stack that failed is what today's backup had of it, or nothing."""
    for tree in stack.covered_trees:
        day.discard(str(tree.artifact_path))
    day.discard(f"{artifacts.DUMPS}/{name}")
    if plan.today and (entry := plan.today.stacks.get(name)):
        for prefix in entry.prefixes:
            day.fill(prefix, day.root / plan.name)


def _publish(means: Means, store: Store, plan: day_plan.Plan, day: days.Day, done: _Run, now: datetime) -> None:
    published = means.settings.backup_root / plan.name
    carried: dict[str, StackEntry] = {}
    for name, entry in (plan.today.stacks if plan.today else {}).items():
        if name not in done.parts:
            carried[name] = entry
            if not all(day.place(prefix).is_dir() for prefix in entry.prefixes):
                for prefix in entry.prefixes:
                    day.fill(prefix, published)
    sections = [section for part in done.parts.values() for section in part.sections]
    for name, entry in carried.items():
        if entry.run and all(copying.are_readable(published, prefix) for prefix in entry.prefixes):
            sections += days.carried_sections(published, [entry])
        else:  # what it holds is kept, but nothing will go for it
            why = entry.incomplete or "its checksums could not be read and were made anew"
            carried[name] = replace(entry, incomplete=why)
            sections += [copying.section(day, prefix, None)[0] for prefix in entry.prefixes]
            done.warnings.append(f"{plan.name}, {display(name)}: {why}")
    index = Index(
        date=now.strftime("%Y-%m-%d"),
        created_at=means.now().astimezone(UTC).isoformat(),
        host=socket.gethostname(),
        stacks={**carried, **{name: part.entry for name, part in done.parts.items()}},
        appliance=__version__,
        full_scan=all(scan for part in done.parts.values() for scan in part.scans.values()),
    )
    means.progress.step(f"publishing {plan.name}")

    def replacing(replaced: str) -> None:
        store.copy_verified(plan.name, replaced)

    days.publish(day, plan.name, index, sections, now, means.reach, replacing=replacing)
    store.narrow_verified(plan.name, carried)  # damage that was found may be in it still
    newest = {**plan.newest, **{name: part.entry for name, part in done.parts.items()}}
    done.snapshots.clear()
    if means.snapshots and filesystem.free_bytes(means.snapshots) >= means.settings.minimum_free_bytes:
        done.snapshots |= _snapshots_of(newest.values())
    means.reach("data-published")


def _snapshots_of(entries: Iterable[StackEntry]) -> set[str]:
    return {tree.snapshot_name for entry in entries for tree in entry.trees if tree.snapshot_name}


def _result(plan: day_plan.Plan, done: _Run) -> JobResult:
    counts = [result.counts for result in done.results]
    failed = [result.stack for result in done.results if result.outcome is Outcome.FAILED]
    reasons = []
    if failed:
        reasons.append(f"failed: {', '.join(display(name) for name in failed)}")
    reasons += done.warnings
    if not plan.make and not plan.skip:
        reasons.append('no stack is opted in: label one with stackward.backup: "true" (`stackward init` proposes)')
    outcomes = [result.outcome for result in done.results] + [Outcome.WARN for _ in done.warnings]
    return JobResult(
        outcome=Outcome.worst(outcomes) if outcomes else Outcome.SKIPPED,
        reasons=tuple(reasons),
        stacks=tuple(done.results),
        counts=Counts(
            files=sum(count.files for count in counts),
            files_changed=sum(count.files_changed for count in counts),
            files_deleted=sum(count.files_deleted for count in counts),
            bytes=sum(count.bytes for count in counts),
            bytes_changed=sum(count.bytes_changed for count in counts),
        ),
        artifacts=(plan.name,) if done.parts else (),
        details={
            "carried": [display(name) for name in plan.carried],
            "scans": {display(path): scan for part in done.parts.values() for path, scan in part.scans.items()},
        },
    )


def _described(plan: day_plan.Plan, settings: Settings, *, full_scan: bool) -> JobResult:
    """The plan that `--dry-run` prints; nothing was touched."""
    table = filesystem.mounts()
    steps = [
        backup_plan.describe(stack, plan.bases.get(stack.name), plan.day_base, settings, table, full_scan=full_scan)
        for stack in plan.make
    ]
    details = {"artifact": plan.name, "stacks": steps, "carried": [display(name) for name in plan.carried]}
    return JobResult(Outcome.OK, ("nothing was done: this is the plan",), plan.skip, details=details)
