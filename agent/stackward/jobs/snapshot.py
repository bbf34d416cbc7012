"""snapshot: makes a read-only snapshot of the volume, and removes those that the grid no longer keeps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from stackward.config import Settings
from stackward.core.errors import SettingsError, StackwardError
from stackward.core.model import JobResult, Outcome
from stackward.core.progress import Progress
from stackward.steps import crashpoints
from stackward.steps.volume import nightly_snapshot, snapshots
from stackward.steps.volume.snapshots import Deleted, Snapshot
from stackward.tools.docker import Docker
from stackward.tools.process import CommandError

_LEAST_WAIT_SECONDS = 1.0


def run(
    *, settings: Settings, docker: Docker | None, now: datetime, progress: Progress, dry_run: bool = False
) -> JobResult:
    """The scheduled job; a host without a Btrfs volume skips it. The caller holds the volume's lock.

    Where a snapshot cannot be made, what the grid does not keep goes all the same: it may be what takes the room.
    """
    volume = settings.volume
    if why := snapshots.usable(volume):
        return JobResult(Outcome.SKIPPED, (why,))
    details: dict[str, Any] = {"dry_run": dry_run, "created": "", "removed": []}
    reasons: list[str] = []
    outcome = Outcome.OK
    if not dry_run:
        progress.step("taking a snapshot of the volume")
        clear(volume)
        try:
            details["created"] = _created(settings, now).name
        except StackwardError as error:
            outcome = Outcome.FAILED
            reasons += [error.message, *([f"HINT: {error.hint}"] if error.hint else [])]
    known = snapshots.listed(volume, settings.zone)
    decisions = snapshots.plan(known, settings.snapshot_keep, now)
    details["items"] = [
        {"snapshot": one.item.key, "keep": one.keep, "reasons": list(one.reasons)} for one in reversed(decisions)
    ]
    going = [one for one, decision in zip(known, decisions, strict=True) if not decision.keep]
    if dry_run:
        details["removed"] = [one.name for one in going]
        return JobResult(outcome, tuple(reasons), details=details)
    notes = _delete_all(settings, docker, going, progress, details)
    if notes and outcome is Outcome.OK:
        outcome = Outcome.WARN
    created = (str(details["created"]),) if details["created"] else ()
    return JobResult(outcome, (*reasons, *notes), artifacts=created, details=details)


def create(*, settings: Settings, now: datetime, label: str = "") -> JobResult:
    """One snapshot, by hand; nothing is removed. With a label it stays until somebody deletes it.

    Raises:
        RefusedError: the volume cannot be snapshotted.
        SettingsError: the label cannot be one.
    """
    snapshots.require(settings.volume)
    clear(settings.volume)
    made = _created(settings, now, label)
    return JobResult(Outcome.OK, artifacts=(made.name,), details={"created": made.name, "path": str(made.path)})


def delete(
    *,
    settings: Settings,
    docker: Docker | None,
    wanted: Sequence[str],
    progress: Progress,
    dry_run: bool = False,
) -> JobResult:
    """Delete the snapshots that were named.

    Raises:
        SettingsError: a name is of none, or means several; nothing was deleted.
    """
    known = snapshots.listed(settings.volume, settings.zone)
    chosen = list(dict.fromkeys(snapshots.choose(known, one, only=True) for one in wanted))
    details: dict[str, Any] = {"dry_run": dry_run, "removed": []}
    if dry_run:
        return JobResult(Outcome.OK, details=details | {"removed": [one.name for one in chosen]})
    snapshots.require(settings.volume)
    notes = _delete_all(settings, docker, chosen, progress, details)
    return JobResult(Outcome.WARN if notes else Outcome.OK, tuple(notes), details=details)


def clear(volume: Path) -> None:
    """Remove what killed runs left on the volume."""
    snapshots.sweep(volume)
    nightly_snapshot.clear(volume)


def _created(settings: Settings, now: datetime, label: str = "") -> Snapshot:
    def reached(point: str) -> None:
        crashpoints.reach(point, settings.crash_point)

    try:
        return snapshots.create(settings.volume, now, label=label, skip=settings.snapshot_skip, reached=reached)
    except ValueError as error:
        raise SettingsError(f"a snapshot's label {error}") from error


def _delete_all(
    settings: Settings,
    docker: Docker | None,
    chosen: Sequence[Snapshot],
    progress: Progress,
    details: dict[str, Any],
) -> list[str]:
    """Delete them all, waiting for Btrfs no longer than for one; returns what a person should know."""
    deadline = time.monotonic() + snapshots.WAIT_SECONDS
    notes = []
    for one in chosen:
        progress.step(f"deleting snapshot {one.name}")
        left = max(_LEAST_WAIT_SECONDS, deadline - time.monotonic())
        try:
            gone = snapshots.delete(
                one.path, volume=settings.volume, mounted=snapshots.mounted_by(docker), wait_seconds=left
            )
        except CommandError as error:
            notes.append(f"{one.name} could not be deleted: {error.stderr_tail or error.message}")
            continue
        details["removed"].append(one.name)
        if note := _told(one.name, gone):
            notes.append(note)
    return notes


def _told(name: str, gone: Deleted) -> str:
    """What is worth saying of a deletion. That Btrfs is not done with a large one is not; that somebody uses it is."""
    if gone.cleaned or not gone.held_by:
        return ""
    return f"{name} is deleted, but its space is not free while it is in use: {'; '.join(gone.held_by)}"
