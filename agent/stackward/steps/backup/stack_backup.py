"""Backs one stack up into a day: hooks, dumps, standstill, snapshots, copies, manifest lines.

The stack is the unit: whatever fails here is raised, and the caller puts the day's part of this stack back to what it was.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from stackward import __version__
from stackward.config import Settings
from stackward.core import artifacts
from stackward.core.errors import RefusedError
from stackward.core.index import DumpEntry, StackEntry, TreeEntry
from stackward.core.model import Counts, Stack, Tree, display
from stackward.core.patterns import rsync_filters
from stackward.core.progress import Progress
from stackward.steps import backup_paths, crashpoints, quiesce
from stackward.steps.backup import copying, dumps, hooks, second_pass, sources, tree_backup
from stackward.steps.backup.day import Day
from stackward.steps.backup.tree_backup import Last, TreeCopy
from stackward.steps.sizes import Sizes, cache_file
from stackward.steps.undo import Undo
from stackward.tools import btrfs, filesystem, manifest, tree_root
from stackward.tools.docker import Docker, DockerUnavailableError


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
    full_scan: bool  # look at every file, whatever the snapshots say
    run_id: str
    now: Callable[[], datetime]
    progress: Progress

    def reach(self, point: str) -> None:
        crashpoints.reach(point, self.settings.crash_point)


@dataclass(frozen=True, slots=True)
class Base:
    """The newest good backup of the stack: what unchanged files are shared with.

    `suspect` says why it may hold damage all the same, or "".
    """

    path: Path
    entry: StackEntry
    suspect: str = ""

    def tree(self, path: str) -> Last | None:
        """The tree that lies at `path` in the backup; none where a link leads to another one."""
        tree = next((tree for tree in self.entry.trees if tree.path == path), None)
        if tree is not None and backup_paths.has_link(self.path, path):
            return None
        return Last(self.path, tree, self.entry.began, self.suspect) if tree is not None else None


@dataclass(slots=True)
class Part:
    """One stack's finished part of a day. `scans` says of each tree why it was looked at whole, or "" if it was not."""

    entry: StackEntry
    sections: list[manifest.Section]
    counts: Counts
    scans: dict[str, str]
    warnings: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Work:
    """What is found out while a stack is backed up."""

    chosen: sources.Plan
    warnings: list[str]
    began: datetime
    taken: dict[Path, Path] = field(default_factory=dict)  # the subvolumes' snapshots
    trees: dict[str, TreeCopy] = field(default_factory=dict)  # by their path in the backup
    dumps: tuple[DumpEntry, ...] = ()
    at: datetime = field(default_factory=lambda: datetime.min.replace(tzinfo=UTC))
    standstill_seconds: float = 0.0


def back_up(
    means: Means, stack: Stack, day: Day, base: Base | None, last: StackEntry | None, *, accepted: bool
) -> Part:
    """Copy all covered trees of `stack` into `day`. `last` is its newest backup, be that damaged: it tells what was there.

    Raises:
        LostTreeError: the shrink guard; not with `accepted`.
        DockerUnavailableError: `means.docker` is None, and what runs may be writing.
        StackwardError, OSError: the part is not whole and must not be published.
    """
    began = means.now()
    trees, warnings = _present(stack, last)
    chosen = sources.plan(trees, means.settings.volume if means.snapshots else Path("/nonexistent"), means.mounts)
    quiesce.require_known(means.docker, stack, chosen.one_snapshot, trees)
    stack = quiesce.refreshed(means.docker, stack)
    with ExitStack() as held:
        _hold_volumes(means, stack, trees, held)
        if not accepted:
            _guard(trees, last, means.settings.shrink_limit)
        work = _Work(chosen, warnings, began.astimezone(UTC))
        with hooks.around(means.docker, means.undo, stack) as hook_warnings:
            means.reach("data-hooked")
            _dump(means, stack, day, work)
            for source in chosen.live:
                work.trees[str(source.tree.artifact_path)] = _copy(means, stack, day, source, base, work)
            _stand_still(means, stack, day, trees, work)
        work.warnings += hook_warnings
        means.reach("data-resumed")
        for source in chosen.sources:
            if source.subvolume is not None:
                work.trees[str(source.tree.artifact_path)] = _copy(means, stack, day, source, base, work)
    means.reach("data-copied")
    means.progress.step(f"{display(stack.name)}: writing checksums")
    part = _finish(means, stack, day, base, work)
    if not accepted:
        _guard_again(trees, part.entry, last, means.settings.shrink_limit)
    return part


def _present(stack: Stack, last: StackEntry | None) -> tuple[list[Tree], list[str]]:
    """The trees that are there; one that is missing now and held files before is lost data."""
    before = {tree.path: tree.files for tree in last.trees} if last else {}
    trees, warnings = [], []
    for tree in stack.covered_trees:
        if tree.path.is_dir():
            trees.append(tree)
        elif before.get(str(tree.artifact_path)):
            raise LostTreeError(tree, f"it held {before[str(tree.artifact_path)]} files and is not there now")
        else:
            warnings.append(f"{tree.source} does not exist yet: not copied")
    return trees, warnings


def _guard(trees: Sequence[Tree], last: StackEntry | None, shrink_limit: float) -> None:
    before = {tree.path: tree.files for tree in last.trees} if last else {}
    for tree in trees:
        if why := copying.looks_lost(tree.path, before.get(str(tree.artifact_path), 0), shrink_limit):
            raise LostTreeError(tree, why)


def _guard_again(trees: Sequence[Tree], made: StackEntry, last: StackEntry | None, shrink_limit: float) -> None:
    """Now that all files were counted. Where something else is left out than before, fewer of them mean nothing."""
    before = {tree.path: tree for tree in last.trees} if last else {}
    by_path = {str(tree.artifact_path): tree for tree in trees}
    for entry in made.trees:
        old = before.get(entry.path)
        comparable = old is not None and old.left_out == entry.left_out
        if old and comparable and (why := copying.is_lost(entry.files, old.files, shrink_limit)):
            raise LostTreeError(by_path[entry.path], why)


def _hold_volumes(means: Means, stack: Stack, trees: Sequence[Tree], held: ExitStack) -> None:
    """Keep volumes with driver options mounted: they are empty directories while no container uses them."""
    for tree in trees:
        if tree.driver_options and tree.volume is not None:
            if means.docker is None:
                raise DockerUnavailableError(f"no Docker Engine answers, which volume {tree.volume} must be mounted by")
            image = next((container.image_id for container in stack.containers if container.image_id), "")
            if not image:
                own = means.docker.container(socket.gethostname())
                image = own.image_id if own else ""
            held.enter_context(means.docker.holding_volume(tree.volume, image))


def _dump(means: Means, stack: Stack, day: Day, work: _Work) -> None:
    relative = f"{artifacts.DUMPS}/{stack.name}"
    day.discard(relative)
    if means.docker is not None and any(service.policy.dumps for service in stack.services):
        means.progress.step(f"{display(stack.name)}: dumping databases")
        work.dumps, warnings = dumps.take(means.docker, means.settings, stack, day.place(relative), relative)
        work.warnings += warnings


def _stand_still(
    means: Means,
    stack: Stack,
    day: Day,
    trees: Sequence[Tree],
    work: _Work,
) -> None:
    """Snapshot what can be, copy the rest again, while the stack stands still."""
    chosen = work.chosen
    stack = quiesce.refreshed(means.docker, stack)
    plan = quiesce.plan(stack, chosen.one_snapshot, trees)
    if chosen.subvolumes:
        btrfs.sync(means.settings.volume)
    with quiesce.quiesced(
        means.docker, means.undo, stack, plan, stack.policy.max_standstill_seconds, means.settings.crash_point
    ) as still:
        work.at = means.now().astimezone(UTC)
        if chosen.subvolumes and means.snapshots is not None:
            work.taken = sources.take(chosen, means.snapshots, f"{means.run_id}-{tree_backup.short(stack.name)}")
            means.reach("data-snapshot")
        for source in chosen.live:
            relative = str(source.tree.artifact_path)
            filters = rsync_filters(tree_backup.left_out(source.tree, stack, means.settings))
            made = work.trees[relative]
            with tree_root.opened(source.tree.path) as root:
                done, began = made.transfer, made.began
                again = second_pass.copy(day, root, relative, filters, done, began, lambda: still.remaining)
            work.trees[relative] = replace(made, transfer=again)
        quiesce.require_still(means.docker, stack, chosen.one_snapshot, trees)
    work.standstill_seconds = still.seconds or 0.0


def _copy(
    means: Means,
    stack: Stack,
    day: Day,
    source: sources.Source,
    base: Base | None,
    work: _Work,
) -> TreeCopy:
    bytes_so_far = files_so_far = 0
    live = " while it is in use" if source.subvolume is None else ""
    step = f"{display(stack.name)}: copying {display(source.tree.path)}{live}"

    def advance(done: int, files: int) -> None:
        nonlocal bytes_so_far, files_so_far
        means.progress.advance(byte_count=done - bytes_so_far, files=files - files_so_far)
        bytes_so_far, files_so_far = done, files

    last = base.tree(str(source.tree.artifact_path)) if base else None
    means.progress.step(step)
    return tree_backup.copy(
        day,
        source,
        read_from=sources.read_path(source, work.taken),
        snapshot=work.taken.get(source.subvolume) if source.subvolume else None,
        nested=work.chosen.has_nested(source),
        last=last,
        patterns=tree_backup.left_out(source.tree, stack, means.settings),
        full_scan=means.full_scan,
        on_progress=advance,
        on_scan=lambda: means.progress.step(step, total_bytes=_expected_bytes(means, stack, source.tree, last)),
    )


def _expected_bytes(means: Means, stack: Stack, tree: Tree, last: Last | None) -> int | None:
    """How large the tree is thought to be: as its last backup, else as somebody measured it not long ago."""
    if last is not None:
        return last.entry.bytes or None
    if stack.policy.exclude:
        return None  # nobody measured what is left of it
    size = Sizes(cache_file(means.settings.state_dir), means.now()).known(tree.path)
    return size.bytes or None if size is not None and size.complete else None


def _finish(
    means: Means,
    stack: Stack,
    day: Day,
    base: Base | None,
    work: _Work,
) -> Part:
    sections, entries, changed = [], [], 0
    for source in work.chosen.sources:
        made = work.trees[str(source.tree.artifact_path)]
        if made.transfer.vanished:
            work.warnings.append(f"{source.tree.source}: files vanished while they were copied")
        # With others nested in it, it cannot serve as the next backup's old snapshot.
        snapshot = work.taken[source.subvolume] if source.subvolume and not work.chosen.has_nested(source) else None
        left_out = tree_backup.left_out(source.tree, stack, means.settings)
        section, tree, new = _described(day, source, base, made, snapshot, left_out)
        sections.append(section)
        entries.append(tree)
        changed += new
    if work.dumps:
        section, _files, new = copying.section(day, f"{artifacts.DUMPS}/{stack.name}", None)
        sections.append(section)
        changed += new
    entry = StackEntry(
        stack=stack.name,
        project=stack.project,
        at=work.at.isoformat(),
        run=means.run_id,
        trees=tuple(entries),
        dumps=work.dumps,
        compose_sha256=stack.compose_sha256,
        images=_images(means.docker, stack),
        external_networks=stack.external_networks,
        standstill_seconds=round(work.standstill_seconds, 3),
        warnings=tuple(work.warnings),
        versions={"stackward": __version__},
        began=work.began.isoformat(),
        incomplete="" if stack.resolved else "its compose file could not be read",
    )
    counts = Counts(
        files=sum(tree.files for tree in entries) + len(work.dumps),
        files_changed=changed,
        files_deleted=sum(made.transfer.files_deleted for made in work.trees.values()),
        bytes=sum(tree.bytes for tree in entries),
        bytes_changed=sum(made.transfer.bytes_changed for made in work.trees.values()),
    )
    return Part(entry, sections, counts, {path: made.scan for path, made in work.trees.items()}, work.warnings)


def _described(
    day: Day,
    source: sources.Source,
    base: Base | None,
    made: TreeCopy,
    snapshot: Path | None,
    left_out: Sequence[str],
) -> tuple[manifest.Section, TreeEntry, int]:
    """The tree's manifest lines, its entry of the index, and how many of the lines are new."""
    relative = str(source.tree.artifact_path)
    last = base.tree(relative) if base else None
    section, files, new = tree_backup.section(day, relative, last, made)
    return section, tree_backup.entry(source, made, files, last, snapshot, left_out), new


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
