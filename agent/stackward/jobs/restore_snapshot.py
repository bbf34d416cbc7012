"""restore-snapshot: puts a stack, a tree of it or a path back as a snapshot of the volume holds it.

What it replaces is kept for seven days; `stackward restore STACK --undo` puts that back, as after a restore from a backup.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stackward.core.errors import SettingsError, StackwardError
from stackward.core.index import TreeEntry
from stackward.core.model import Counts, JobResult, Outcome, Stack, StackResult, Tree, display, undisplayed
from stackward.steps import quiesce
from stackward.steps.restore import kept, restore_path, restore_plan, restore_tree, restoring
from stackward.steps.restore.restore_plan import Inside, Target
from stackward.steps.restore.restoring import Means
from stackward.steps.volume import snapshots
from stackward.steps.volume.snapshots import Snapshot
from stackward.tools import btrfs, filesystem, rsync


@dataclass(frozen=True, slots=True)
class Request:
    """From which snapshot (as `snapshots.choose` takes it), and what: all of `stack`, or a tree or path of it."""

    wanted: str
    stack: str
    path: str | None = None
    overwrite: bool = False
    force: bool = False
    dry_run: bool = False


@dataclass(slots=True)
class _Done:
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    transfers: list[rsync.Transfer] = field(default_factory=list)
    standstill_seconds: float | None = None


def run(request: Request, means: Means, discovery_stacks: Sequence[Stack]) -> JobResult:
    """Restore, or with `dry_run` say what would change. The caller holds the locks of the volume and of the stack.

    Raises:
        RefusedError: somebody else uses its trees, or it is not known whether it runs.
        SettingsError: there is no such stack, no such snapshot, or a path that is not of the stack.
        StackwardError, OSError: the snapshot does not hold it, or it failed; what was there is there again.
    """
    volume = Path(os.path.realpath(means.settings.volume))
    snapshots.require(volume)
    snapshot = snapshots.choose(snapshots.listed(volume, means.settings.zone), request.wanted)
    stack = next((one for one in discovery_stacks if one.name == request.stack), None)
    if stack is None:
        raise SettingsError(f"there is no stack {display(request.stack)}", hint="`stackward stacks` names them all")
    done = _Done(details={"snapshot": snapshot.name, "dry_run": request.dry_run})
    found = _targets(stack, volume, snapshot, done)
    restoring.refuse_foreign(stack, found)
    inside = _inside(request, stack, snapshot, found)
    if inside is not None and inside.path.parts:
        _path(request, means, stack, snapshot, inside, found, done)
    else:
        _trees(request, means, stack, snapshot, [t for t in found if inside is None or t.entry == inside.entry], done)
    if not request.dry_run:
        kept.expire(means.kept, means.now)
    return _result(request, snapshot, done)


def _targets(stack: Stack, volume: Path, snapshot: Snapshot, done: _Done) -> list[Target]:
    """The stack's trees that the snapshot holds; about the others there is a note."""
    found = []
    for tree in stack.trees:
        if not tree.path.is_relative_to(volume) or tree.path == volume:
            done.notes.append(f"{display(tree.source)}: it is not on the volume")
            continue
        source = snapshot.path / tree.path.relative_to(volume)
        if source.is_dir() and not source.is_symlink():
            found.append(Target(_entry(tree), source, tree.path, tree))
        else:
            done.notes.append(f"{display(tree.source)}: it is not in {snapshot.name}")
    if not found:
        raise StackwardError(
            f"{snapshot.name} holds no tree of {display(stack.name)}",
            hint="only what lies on the volume is in its snapshots; `stackward restore` takes the last backup",
        )
    return found


def _inside(request: Request, stack: Stack, snapshot: Snapshot, found: Sequence[Target]) -> Inside | None:
    if request.path is None:
        return None
    absent = f"{snapshot.name} holds no {display(request.path)} of {display(stack.name)}"
    roots = [(target.entry, target.source) for target in found]
    try:
        return restore_plan.locate_in(roots, request.path, stack.directory, absent)
    except StackwardError:
        if (meant := undisplayed(request.path)) == request.path:
            raise
    return restore_plan.locate_in(roots, meant, stack.directory, absent)


def _trees(
    request: Request, means: Means, stack: Stack, snapshot: Snapshot, found: Sequence[Target], done: _Done
) -> None:
    done.warnings += [warning for target in found for warning in _lost_subvolumes(target)]
    if request.dry_run:
        done.details["trees"] = [restore_tree.described(target) for target in found]
        done.details["stop"] = [one.name for one in quiesce.whole_stack(stack).stop]
        return
    if not request.force:
        restoring.require_docker(means, stack)
    kept.discard_unfinished(means.kept, stack.name)
    chosen = [restore_tree.replacement(target, means.run_id, means.settings) for target in found]
    running = means.docker.containers() if means.docker is not None else ()
    restoring.refuse_other_users(stack, chosen, running, force=request.force)
    swapped = restoring.replace_trees(means, stack, _what(stack, snapshot), chosen, restore_tree.share)
    done.transfers += swapped.transfers
    done.notes += swapped.notes
    done.standstill_seconds = swapped.standstill_seconds
    if not stack.running:
        done.notes.append(f"{display(stack.name)} was not running and was not started")


def _path(
    request: Request,
    means: Means,
    stack: Stack,
    snapshot: Snapshot,
    inside: Inside,
    found: Sequence[Target],
    done: _Done,
) -> None:
    place = next(target.place for target in found if target.entry == inside.entry)
    chosen = restore_path.plan(inside, place, overwrite=request.overwrite)
    done.details |= restoring.described_path(chosen)
    done.notes += restoring.path_notes(chosen)
    if not request.dry_run:
        what = _what(stack, snapshot, str(inside.path))
        done.transfers += restoring.write_path(means, stack, what, chosen, lambda _path: None).transfers


def _lost_subvolumes(target: Target) -> list[str]:
    """Where a tree is copied as files, what was a subvolume in it becomes a directory."""
    if filesystem.is_subvolume(target.source):
        return []
    root = next(parent for parent in target.source.parents if filesystem.is_subvolume(parent))
    inner = [root / one.path for one in btrfs.nested_subvolumes(root)]
    return [
        f"{display(target.place / path.relative_to(target.source))} was a subvolume and becomes a directory"
        for path in inner
        if path.is_relative_to(target.source) and filesystem.is_subvolume(path)
    ]


def _entry(tree: Tree) -> TreeEntry:
    return TreeEntry(
        mount_name=tree.mount_name,
        kind=tree.kind.value,
        path="",
        source=str(tree.source),
        real_path=str(tree.path),
        volume=tree.volume,
        snapshot=True,
        files=0,
        bytes=0,
    )


def _what(stack: Stack, snapshot: Snapshot, path: str = "") -> str:
    return f"restore of {display(stack.name)}{':' + display(path) if path else ''} from snapshot {snapshot.name}"


def _result(request: Request, snapshot: Snapshot, done: _Done) -> JobResult:
    counts = Counts(
        files=sum(one.files for one in done.transfers), files_changed=sum(one.files_changed for one in done.transfers)
    )
    outcome = Outcome.WARN if done.warnings else Outcome.OK
    part = StackResult(request.stack, outcome, tuple(done.warnings), counts, done.standstill_seconds, snapshot.name)
    return JobResult(
        outcome=outcome,
        reasons=tuple(done.warnings),
        stacks=() if request.dry_run else (part,),
        artifacts=(snapshot.name,),
        details=done.details | {"not_restored": done.notes},
    )
