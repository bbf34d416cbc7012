"""Moves a stack's tree to a subvolume of the volume, `<volume>/<stack>/<tree>`, and leaves a symbolic link in its place.

The copy is made while the stack runs, brought up to date while it stands still, and compared byte by byte. Only then the
link takes the tree's place, in one step. What was there is kept for seven days. A run that is killed leaves the old tree or the
link to the new one, never neither.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackward.config import Settings
from stackward.core.errors import StackwardError
from stackward.core.model import Container, Stack, Tree, TreeKind, display
from stackward.core.progress import Progress
from stackward.core.units import format_bytes
from stackward.steps.restore import home, kept
from stackward.steps.restore.kept import Entry
from stackward.steps.undo import Step, Undo
from stackward.steps.volume import sameness, volume_move
from stackward.steps.volume.volume_move import KEPT_SUFFIX, VolumeMove
from stackward.tools import beneath, btrfs, filesystem, rsync, tree_root
from stackward.tools.docker import VolumeInfo

INCOMING = ".incoming-"
_ROOM = 1.05  # of the tree's size, for what the copy itself needs
_UNFINISHED = "trusted.stackward.unfinished"  # of a copy that has its name, while no link leads to it yet


@dataclass(frozen=True, slots=True)
class Move:
    """A tree that is to go. `place` becomes a link to `target`; `home` holds what was there."""

    tree: Tree
    place: Path
    target: Path
    home: Path
    bytes: int

    @property
    def incoming(self) -> Path:
        return self.target.with_name(INCOMING + self.target.name)

    @property
    def old(self) -> Path:
        return self.home / f"{self.tree.mount_name}.old"


@dataclass(frozen=True, slots=True)
class Situation:
    """What a plan is made from, besides the stack itself."""

    volume: Path
    mounts: tuple[filesystem.Mount, ...]
    stacks: Sequence[Stack]
    containers: Sequence[Container]
    size_of: Callable[[Path], int]
    volume_info: Callable[[str], VolumeInfo | None]
    run_id: str
    settings: Settings


def target_of(tree: Tree, volume: Path) -> Path:
    return volume / tree.stack / tree.mount_name


def is_done(tree: Tree, volume: Path) -> bool:
    """Whether the tree is a subvolume of its own on the volume already, wherever on it."""
    return tree.path.is_relative_to(volume) and tree.path != volume and filesystem.is_subvolume(tree.path)


def obstacle(stack: Stack, tree: Tree, situation: Situation, *, promised_bytes: int = 0) -> str:
    """Why the tree cannot be moved safely, or "". Of the volume's room, other trees will take `promised_bytes`."""
    if not tree.covered:
        return tree.reason or "it is not covered by backups"
    if tree.kind is TreeKind.VOLUME:
        why = _volume_of_others(stack, tree, situation)
    else:
        why = _unmovable(tree.source, tree.path, situation)
    return why or _shared(stack, tree, situation) or _no_place(tree, situation, promised_bytes)


def _volume_of_others(stack: Stack, tree: Tree, situation: Situation) -> str:
    """Why a volume is not the stack's own to make again, or ""."""
    name = tree.volume or ""
    info = situation.volume_info(name)
    declared: dict[str, dict[str, Any]] = {
        str((definition or {}).get("name") or f"{stack.project}_{key}"): definition or {}
        for key, definition in (stack.raw.get("volumes") or {}).items()
    }
    reasons = {
        "Docker does not have it yet: start the stack once": info is None,
        "it is an anonymous volume: Compose makes a new one with each container": name not in declared,
        "it has driver options already": info is not None and bool(info.options),
        "the compose file gives it a driver or options": any(
            declared.get(name, {}).get(key) for key in ("driver", "driver_opts")
        ),
        "what an earlier move kept of it is still there": situation.volume_info(name + KEPT_SUFFIX) is not None,
    }
    return next((why for why, holds in reasons.items() if holds), "") or not_made_again(stack, name)


def not_made_again(stack: Stack, volume: str) -> str:
    """Which container would be lost with the volume that Docker has to remove, and why; or ""."""
    found = volume_move.having(stack.containers, [volume])
    known = {service.name for service in stack.services}
    for one in found:
        if not one.one_off and one.service not in known:
            return (
                f"container {display(one.name)} has it, and would be lost: the compose file has no service"
                f" {display(one.service)} any more. Remove it if it is not needed (docker rm {display(one.name)})"
            )
    return volume_move.lasting(found)


def _unmovable(source: Path, path: Path, situation: Situation) -> str:
    reasons: tuple[tuple[str, Callable[[], bool]], ...] = (
        ("it is no directory", lambda: not path.is_dir()),
        (
            f"it is reached through a symbolic link, and lies in {display(path)}",
            lambda: Path(os.path.realpath(source.parent)) / source.name != path,
        ),
        (
            "it is a mount point, or something is mounted in it",
            lambda: any(mount.point == path or path in mount.point.parents for mount in situation.mounts),
        ),
        ("the volume itself lies in it", lambda: situation.volume.is_relative_to(path)),
        (
            "it is a Btrfs subvolume, or has some in it: those cannot be moved aside as directories are",
            lambda: filesystem.is_subvolume(path) or _has_subvolumes(path, situation),
        ),
    )
    return next((why for why, holds in reasons if holds()), "")


def _has_subvolumes(path: Path, situation: Situation) -> bool:
    root = btrfs.subvolume_of(path, situation.mounts)
    if root is None:
        return False
    return any((root / one.path).is_relative_to(path) for one in btrfs.nested_subvolumes(root))


def _shared(stack: Stack, tree: Tree, situation: Situation) -> str:
    for other, its in _trees_of_others(stack, situation):
        is_below = its.path == tree.path or tree.path in its.path.parents
        if is_below or (its.path in tree.path.parents and its.writable):
            return f"stack {display(other)} uses it, too"
    for container in situation.containers:
        if container.project == stack.project:
            continue
        if tree.volume is not None and any(mount.name == tree.volume for mount in container.mounts):
            return f"container {display(container.name)}, which is not of this stack, has it"
        for mount in container.mounts if container.runs else ():
            source = Path(os.path.realpath(mount.source)) if mount.source else None
            if source is not None and (source == tree.path or tree.path in source.parents):
                return f"container {display(container.name)}, which is not of this stack, uses it"
    return ""


def readers(stack: Stack, tree: Tree, situation: Situation) -> list[str]:
    """Who reads what the tree lies in, and finds a link from now on that leads nowhere there, in words."""
    return [
        f"stack {display(other)} reads {display(its.path)}: in its containers, the link to the volume leads nowhere"
        for other, its in _trees_of_others(stack, situation)
        if tree.volume is None and its.path in tree.path.parents and not situation.volume.is_relative_to(its.path)
    ]


def _trees_of_others(stack: Stack, situation: Situation) -> Iterator[tuple[str, Tree]]:
    for other in situation.stacks:
        if other.name != stack.name:
            yield from ((other.name, tree) for tree in other.trees)


def _no_place(tree: Tree, situation: Situation, promised_bytes: int) -> str:
    target = target_of(tree, situation.volume)
    if os.path.lexists(target) and not _is_unfinished(target):
        return f"{display(target)} is there already"
    if target.parent.is_symlink() or (target.parent.exists() and not target.parent.is_dir()):
        return f"{display(target.parent)} is no directory"
    needed, free = situation.size_of(tree.path), filesystem.free_bytes(situation.volume)
    if (promised_bytes + needed) * _ROOM > free:
        others = f", of which other trees take {format_bytes(promised_bytes)}" if promised_bytes else ""
        return f"it needs {format_bytes(needed)}, and the volume has {format_bytes(free)} left{others}"
    return ""


def move_for(tree: Tree, situation: Situation) -> Move:
    return Move(
        tree,
        tree.path,
        target_of(tree, situation.volume),
        home.outside(tree.path, situation.run_id, situation.settings),
        situation.size_of(tree.path),
    )


def begin(move: Move, progress: Progress) -> None:
    """The first copy, while the stack runs. Raises DiskFullError, CommandError."""
    abandon(move)
    beneath.make_directories(move.target.parent, mode=0o755)
    btrfs.create_subvolume(move.incoming)
    _copy(move, progress)
    filesystem.sync_filesystem(move.incoming)


def finish(move: Move, progress: Progress) -> sameness.Proof:
    """While the stack stands still: what changed meanwhile is copied, and all is compared.

    Raises:
        StackwardError, OSError: it is not the same; nothing was changed.
    """
    _copy(move, progress)
    filesystem.sync_filesystem(move.incoming)
    with tree_root.opened(move.place) as one, tree_root.opened(move.incoming) as other:
        return sameness.prove(one, other)


def name(move: Move) -> None:
    """The copy that was compared gets its name; who is killed before that leaves `incoming`, whose removal is on record."""
    with beneath.opened(move.incoming, beneath.DIRECTORY) as incoming:
        os.setxattr(incoming, _UNFINISHED, b"1")
    filesystem.rename_new(move.incoming, move.target)
    filesystem.sync_parents(move.target)


def volume_step(move: Move, info: VolumeInfo) -> Step:
    """What makes a named volume one that is bound to the copy."""
    return Step("volume", info.name, VolumeMove(info.name, str(move.target), info.labels).to_json())


def entry(move: Move) -> Entry:
    """What the record of kept things says; to be told before `swap`."""
    return kept.entry_for(move.place, move.old)


def was_moved(of: Entry) -> bool:
    """Whether a killed run came so far; a link that it had ready and did not use is removed."""
    _remove_link(Path(of.kept))
    return beneath.status(of.kept) is not None


def swap(move: Move, undo: Undo, stopped: Sequence[str], proven: sameness.Proof) -> None:
    """The link takes the tree's place, and the tree, which is what was `proven`, goes to `old`.

    Killed meanwhile: one of them stands there.

    Where the file system cannot swap names it takes two steps; who takes those back stops the containers `stopped` (by ID)
    before, in case that a host that boots has started them on what Docker makes for a directory that is not there.

    Raises:
        StackwardError, OSError: the tree stands where it stood.
    """
    beneath.make_directories(move.home)
    _make_link(move.old, move.target)
    try:
        if not filesystem.exchange(move.old, move.place):
            _swap_in_steps(move, undo, stopped)
    except BaseException:
        _remove_link(move.old)
        raise
    if not proven.is_of(beneath.status(move.old)):
        swap_back(move)
        raise StackwardError(
            f"{display(move.place)} was replaced by something else after it was compared; that stands there again",
            hint="look at what changes it although its stack is stopped",
        )
    filesystem.sync_parents(move.place, move.old)


def swap_back(move: Move) -> None:
    """The tree stands where it stood, and nothing is left of the link."""
    if not filesystem.exchange(move.old, move.place):
        filesystem.remove(move.place)
        filesystem.rename_new(move.old, move.place)
    _remove_link(move.old)
    filesystem.sync_parents(move.place)


def _swap_in_steps(move: Move, undo: Undo, stopped: Sequence[str]) -> None:
    link = move.old.with_suffix(".link")
    filesystem.replace(move.old, link)
    back = [*(Step("stop", one) for one in stopped), Step("rename", str(move.old), str(move.place))]
    with undo.promised(f"{move.place} is moved to the volume", back, only_on_error=True):
        filesystem.rename_new(move.place, move.old)
        filesystem.rename_new(link, move.place)
        filesystem.sync_parents(move.place)


def _make_link(path: Path, target: Path) -> None:
    with beneath.parent(path) as (directory, name):
        os.symlink(target, name, dir_fd=directory)


def _remove_link(path: Path) -> None:
    """Remove it if it is a link, and nothing else."""
    found = beneath.status(path)
    if found is not None and stat.S_ISLNK(found.st_mode):
        filesystem.remove(path)


def settle(target: Path) -> None:
    """The copy is the tree from now on; to be said after `swap`. May be said twice."""
    if _is_unfinished(target):
        with beneath.opened(target, beneath.DIRECTORY) as descriptor:
            os.removexattr(descriptor, _UNFINISHED)


def abandon(move: Move) -> None:
    """Remove a copy that did not become the tree, also a killed run's."""
    if filesystem.is_subvolume(move.incoming):
        btrfs.delete(move.incoming)
    if _is_unfinished(move.target) and Path(os.path.realpath(move.place)) != Path(os.path.realpath(move.target)):
        btrfs.delete(move.target)


def _is_unfinished(target: Path) -> bool:
    if not filesystem.is_subvolume(target):
        return False
    with suppress(FileNotFoundError, NotADirectoryError), beneath.opened(target, beneath.DIRECTORY) as descriptor:
        return _UNFINISHED in os.listxattr(descriptor)
    return False


def _copy(move: Move, progress: Progress) -> None:
    progress.step(f"copying {display(move.place)} to {display(move.target)}", total_bytes=move.bytes)
    done = 0

    def advance(byte_count: int, _files: int) -> None:
        nonlocal done
        progress.advance(byte_count=byte_count - done)
        done = byte_count

    with tree_root.opened(move.place) as root:
        rsync.copy(root, move.incoming, on_progress=advance)
