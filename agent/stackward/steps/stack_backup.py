"""Backs one stack up into a day: hooks, dumps, standstill, snapshots, copies, manifest lines.

The stack is the unit: whatever fails here is raised, and the caller puts the day's part of this stack back to what it was.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from stackward import __version__
from stackward.config import Settings
from stackward.core import artifacts
from stackward.core.errors import RefusedError
from stackward.core.index import DumpEntry, StackEntry, TreeEntry
from stackward.core.model import Counts, Stack, Tree
from stackward.core.patterns import rsync_filters
from stackward.core.progress import Progress
from stackward.steps import copying, crashpoints, dumps, hooks, kept, quiesce, sources
from stackward.steps.day import Day
from stackward.steps.undo import Undo
from stackward.tools import btrfs, filesystem, manifest, rsync
from stackward.tools.docker import Docker

_SPOOL_BYTES = 32 << 20


class LostTreeError(RefusedError):
    """A tree that held data is empty or nearly so; copying it would push good backups out."""

    def __init__(self, tree: Tree, why: str) -> None:
        super().__init__(
            f"{tree.path}: {why}; nothing was copied and no older backup will be pruned",
            hint=f"is its disk mounted? if this is right: stackward accept {tree.stack}",
        )
        self.tree = tree
        self.why = why


@dataclass(frozen=True, slots=True)
class Means:
    """What a stack's backup works with, the same for all stacks of a run."""

    settings: Settings
    docker: Docker | None
    undo: Undo
    mounts: tuple[filesystem.Mount, ...]
    snapshots: Path | None  # where a run's snapshots go; None without a Btrfs volume
    run_id: str
    now: Callable[[], datetime]
    progress: Progress

    def reach(self, point: str) -> None:
        crashpoints.reach(point, self.settings.crash_point)


@dataclass(frozen=True, slots=True)
class Base:
    """The newest good backup of the stack: what unchanged files are shared with."""

    path: Path
    entry: StackEntry


@dataclass(slots=True)
class Part:
    """One stack's finished part of a day. `lines` may be read once."""

    entry: StackEntry
    lines: Iterator[manifest.Line]
    counts: Counts
    warnings: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Work:
    """What is found out while a stack is backed up."""

    warnings: list[str]
    transfers: dict[str, rsync.Transfer] = field(default_factory=dict)
    dumps: tuple[DumpEntry, ...] = ()
    at: datetime = field(default_factory=lambda: datetime.min.replace(tzinfo=UTC))
    standstill_seconds: float = 0.0


def back_up(means: Means, stack: Stack, day: Day, base: Base | None, *, accepted: bool) -> Part:
    """Copy all covered trees of `stack` into `day`.

    Raises:
        LostTreeError: the shrink guard; not with `accepted`.
        StackwardError, OSError: the part is not whole and must not be published.
    """
    trees, warnings = _present(stack, base)
    with ExitStack() as held:
        _hold_volumes(means, stack, trees, held)
        if not accepted:
            _guard(trees, base, means.settings.shrink_limit)
        chosen = sources.plan(trees, means.settings.volume if means.snapshots else Path("/nonexistent"), means.mounts)
        work = _Work(warnings)
        with hooks.around(means.docker, means.undo, stack) as hook_warnings:
            means.reach("data-hooked")
            _dump(means, stack, day, work)
            for source in chosen.live:
                means.progress.step(f"{stack.name}: copying {source.tree.path} while it is in use")
                _copy(means, stack, work, day, source.tree, source.tree.path, base)
            taken = _stand_still(means, stack, day, chosen, trees, work)
        work.warnings += hook_warnings
        means.reach("data-resumed")
        for source in chosen.sources:
            if source.subvolume is not None:
                means.progress.step(f"{stack.name}: copying {source.tree.path}")
                _copy(means, stack, work, day, source.tree, sources.read_path(source, taken), base)
        for snapshot in taken.values():
            btrfs.delete(snapshot)
    means.reach("data-copied")
    means.progress.step(f"{stack.name}: writing checksums")
    return _finish(means, stack, day, chosen, base, work)


def _present(stack: Stack, base: Base | None) -> tuple[list[Tree], list[str]]:
    """The trees that are there; one that is missing now and held files before is lost data."""
    before = {tree.path: tree.files for tree in base.entry.trees} if base else {}
    trees, warnings = [], []
    for tree in stack.covered_trees:
        if tree.path.is_dir():
            trees.append(tree)
        elif before.get(str(tree.artifact_path)):
            raise LostTreeError(tree, f"it held {before[str(tree.artifact_path)]} files and is not there now")
        else:
            warnings.append(f"{tree.source} does not exist yet: not copied")
    return trees, warnings


def _guard(trees: Sequence[Tree], base: Base | None, shrink_limit: float) -> None:
    before = {tree.path: tree.files for tree in base.entry.trees} if base else {}
    for tree in trees:
        if why := copying.is_lost(tree.path, before.get(str(tree.artifact_path), 0), shrink_limit):
            raise LostTreeError(tree, why)


def _hold_volumes(means: Means, stack: Stack, trees: Sequence[Tree], held: ExitStack) -> None:
    """Keep volumes with driver options mounted: they are empty directories while no container uses them."""
    if means.docker is None:
        return
    for tree in trees:
        if tree.driver_options and tree.volume is not None:
            image = next((container.image_id for container in stack.containers if container.image_id), "")
            if not image:
                own = means.docker.container(socket.gethostname())
                image = own.image_id if own else ""
            held.enter_context(means.docker.holding_volume(tree.volume, image))


def _dump(means: Means, stack: Stack, day: Day, work: _Work) -> None:
    relative = f"{artifacts.DUMPS}/{stack.name}"
    day.discard(relative)
    if means.docker is not None and any(service.policy.dumps for service in stack.services):
        means.progress.step(f"{stack.name}: dumping databases")
        work.dumps, warnings = dumps.take(means.docker, stack, day.place(relative), relative)
        work.warnings += warnings


def _stand_still(
    means: Means,
    stack: Stack,
    day: Day,
    chosen: sources.Plan,
    trees: Sequence[Tree],
    work: _Work,
) -> dict[Path, Path]:
    """Snapshot what can be, copy the rest again, while the stack stands still. Returns the snapshots."""
    plan = quiesce.plan(stack, chosen.one_snapshot, trees)
    taken: dict[Path, Path] = {}
    if chosen.subvolumes:
        btrfs.sync(means.settings.volume)
    with quiesce.quiesced(
        means.docker, means.undo, stack, plan, stack.policy.max_standstill_seconds, means.settings.crash_point
    ) as still:
        work.at = means.now().astimezone(UTC)
        if chosen.subvolumes and means.snapshots is not None:
            taken = sources.take(chosen, means.snapshots, means.run_id)
            means.reach("data-snapshot")
        for source in chosen.live:
            relative = str(source.tree.artifact_path)
            filters = _filters(means, stack, source.tree)
            again = copying.second_pass(day, source.tree.path, relative, filters, lambda: still.remaining)
            if again is not None:
                work.transfers[relative] = again
    work.standstill_seconds = still.seconds or 0.0
    return taken


def _filters(means: Means, stack: Stack, tree: Tree) -> list[str]:
    """What is left out of the tree: what the labels say, and what a restore keeps there for its undoing."""
    ours = [f"- {kept.KEPT}/", f"- *{kept.UNDONE}"]
    if tree.path == means.settings.volume:
        ours += [f"- /{sources.OURS}", f"- /{sources.NIGHTLY}"]
    return [*ours, *rsync_filters(stack.policy.exclude)]


def _copy(means: Means, stack: Stack, work: _Work, day: Day, tree: Tree, source: Path, base: Base | None) -> None:
    relative = str(tree.artifact_path)
    last = last_files = 0

    def advance(done: int, files: int) -> None:
        nonlocal last, last_files
        means.progress.advance(byte_count=done - last, files=files - last_files)
        last, last_files = done, files

    base_path = base.path if base else None
    transfer = copying.first_pass(day, source, relative, base_path, _filters(means, stack, tree), advance)
    work.transfers[relative] = transfer
    if transfer.vanished:
        work.warnings.append(f"{tree.source}: files vanished while they were copied")


def _finish(means: Means, stack: Stack, day: Day, chosen: sources.Plan, base: Base | None, work: _Work) -> Part:
    known = _known(base)
    spool: IO[bytes] = tempfile.SpooledTemporaryFile(_SPOOL_BYTES)  # noqa: SIM115 - the part reads it later
    parts = [str(source.tree.artifact_path) for source in chosen.sources]
    if work.dumps:
        parts.append(f"{artifacts.DUMPS}/{stack.name}")
    files = dict.fromkeys(parts, 0)
    changed = 0
    for part in sorted(parts, key=lambda part: os.fsencode(part) + b"/"):
        for digest, path in copying.lines(day, part, base.path if base else None, known):
            spool.write(manifest.format_line(digest, path))
            files[part] += 1
            changed += known.get(path) != digest
    trees = tuple(_tree_entry(source, files, work) for source in chosen.sources)
    entry = StackEntry(
        stack=stack.name,
        project=stack.project,
        at=work.at.isoformat(),
        run=means.run_id,
        trees=trees,
        dumps=work.dumps,
        compose_sha256=stack.compose_sha256,
        images=_images(means.docker, stack),
        external_networks=stack.external_networks,
        standstill_seconds=round(work.standstill_seconds, 3),
        warnings=tuple(work.warnings),
        versions={"stackward": __version__},
    )
    counts = Counts(
        files=sum(files.values()),
        files_changed=changed,
        files_deleted=sum(transfer.files_deleted for transfer in work.transfers.values()),
        bytes=sum(tree.bytes for tree in trees),
        bytes_changed=sum(transfer.bytes_changed for transfer in work.transfers.values()),
    )
    return Part(entry, _lines(spool), counts, work.warnings)


def _tree_entry(source: sources.Source, files: dict[str, int], work: _Work) -> TreeEntry:
    tree = source.tree
    relative = str(tree.artifact_path)
    return TreeEntry(
        mount_name=tree.mount_name,
        kind=tree.kind.value,
        path=relative,
        source=str(tree.source),
        real_path=str(tree.path),
        volume=tree.volume,
        snapshot=source.subvolume is not None,
        files=files[relative],
        bytes=work.transfers[relative].bytes,
    )


def _known(base: Base | None) -> dict[bytes, str]:
    """The last backup's digests by path. Empty where its manifest cannot be read: then everything is hashed again."""
    if base is None:
        return {}
    try:
        lines = manifest.read(base.path / artifacts.MANIFEST)
        return {path: digest for digest, path in manifest.below(lines, base.entry.prefixes)}
    except (OSError, ValueError):
        return {}


def _lines(spool: IO[bytes]) -> Iterator[manifest.Line]:
    with spool:
        spool.seek(0)
        for line in spool:
            yield manifest.parse_line(line)


def _images(docker: Docker | None, stack: Stack) -> dict[str, dict[str, object]]:
    """The image of every service, so that a restore elsewhere can ask for exactly these."""
    if docker is None:
        return {}
    images: dict[str, dict[str, object]] = {}
    for container in stack.containers:
        if container.service and not container.one_off:
            found = docker.image_info(container.image_id) or {}
            images[container.service] = {
                "image": container.image,
                "id": container.image_id,
                "digests": found.get("digests", []),
            }
    return images
