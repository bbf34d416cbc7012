"""Puts whole trees back in place of what is there.

The copy is made beside the tree while the stack still runs; only then does the stack stand still, what was there is moved
aside, and the copy takes its name. So a restore that fails half-way has changed nothing, and the standstill is that of a few
renames.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackward.core.model import display
from stackward.core.progress import Progress
from stackward.steps.restore import kept
from stackward.steps.restore.kept import KEPT, Entry
from stackward.steps.restore.restore_plan import Target
from stackward.steps.undo import Step
from stackward.tools import btrfs, filesystem, process, rsync

SHOWN = 1000  # changes that a dry run names; the rest are counted
_STAYS = frozenset({KEPT, "lost+found"})  # of a mount point: belongs to the file system


@dataclass(frozen=True, slots=True)
class Replacement:
    """A tree that is to be replaced. `home` is made for this run; it holds the copy (`new`) and later the old (`old`).

    A tree that is a mount point cannot be renamed: with `children`, what is in it is moved, one by one, and `home` is in it.
    """

    target: Target
    home: Path
    children: bool

    @property
    def new(self) -> Path:
        return self.home / f"{self.target.entry.mount_name}.new"

    @property
    def old(self) -> Path:
        return self.home / f"{self.target.entry.mount_name}.old"


@dataclass(frozen=True, slots=True)
class Move:
    source: Path
    destination: Path


def replacement(target: Target, run_id: str) -> Replacement:
    place = target.place
    children = os.path.lexists(place) and filesystem.mount_of(place, filesystem.mounts()).point == place
    home = place / KEPT / run_id if children else kept.directory_beside(place, run_id)
    return Replacement(target, home, children)


def prepare(one: Replacement, progress: Progress) -> rsync.Transfer:
    """Make the copy, durably; nothing that is in use changes.

    Raises:
        DiskFullError, CommandError, OSError: there is no whole copy; `home` may hold a part of it.
    """
    one.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if filesystem.is_subvolume(one.target.place) and not one.children:
        btrfs.create_subvolume(one.new)
    else:
        one.new.mkdir()
    done = 0

    def advance(byte_count: int, _files: int) -> None:
        nonlocal done
        progress.advance(byte_count=byte_count - done)
        done = byte_count

    transfer = rsync.copy(one.target.source, one.new, on_progress=advance)
    filesystem.sync_filesystem(one.new)
    return transfer


def share(one: Replacement, _progress: Progress) -> rsync.Transfer:
    """As `prepare`, from a source on the same Btrfs: what the two have in common takes no room.

    Raises:
        CommandError, OSError: there is no whole copy.
    """
    source, place = one.target.source, one.target.place
    one.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if filesystem.is_subvolume(source) and not one.children:
        btrfs.snapshot_all(source, one.new, lambda _nested: True, read_only=False)
    else:
        if filesystem.is_subvolume(place) and not one.children:
            btrfs.create_subvolume(one.new)
        process.run(["cp", "--archive", "--reflink=auto", "--no-target-directory", "--", source, one.new])
    filesystem.sync_filesystem(one.home)
    return rsync.Transfer(files=0, files_changed=0, files_deleted=0, bytes=0, bytes_changed=0, vanished=False)


def moves_aside(one: Replacement) -> list[Move]:
    """What is there now, and where it goes. Nothing there: no move."""
    place = one.target.place
    if one.children:
        return [Move(place / name, one.old / name) for name in sorted(os.listdir(place)) if name not in _STAYS]
    return [Move(place, one.old)] if os.path.lexists(place) else []


def moves_in(one: Replacement) -> list[Move]:
    place = one.target.place
    if one.children:
        return [Move(one.new / name, place / name) for name in sorted(os.listdir(one.new)) if name not in _STAYS]
    return [Move(one.new, place)]


def entries(one: Replacement) -> list[Entry]:
    """What the record of kept things says of this tree; to be told before anything is moved."""
    aside = moves_aside(one)
    found = [kept.entry_for(move.source, move.destination) for move in aside]
    there = {move.source for move in aside}
    found += [
        Entry(str(move.destination), str(one.old / move.destination.name))
        for move in moves_in(one)
        if move.destination not in there
    ]
    return found


def ways_back(moves: Sequence[Move]) -> list[Step]:
    return [Step("rename", str(move.destination), str(move.source)) for move in moves]


def carry_out(moves: Sequence[Move]) -> None:
    """Rename, never over anything; every directory that gained or lost a name is synced."""
    parents: dict[Path, None] = {}
    for move in moves:
        move.destination.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        filesystem.rename_new(move.source, move.destination)
        parents |= dict.fromkeys((move.source.parent, move.destination.parent))
    for parent in parents:
        filesystem.sync_path(parent)


def adopt_attributes(one: Replacement) -> None:
    """A mount point's own directory gets the owner, mode, times and xattrs that the backup's has."""
    if one.children:
        status = os.stat(one.new)
        os.chown(one.target.place, status.st_uid, status.st_gid)
        shutil.copystat(one.new, one.target.place)


def changes(target: Target) -> tuple[rsync.Item, ...]:
    """What replacing the tree would change, without doing it."""
    if os.path.isdir(target.place):
        items = rsync.differences(target.source, target.place)
    else:
        items = rsync.differences(target.source, target.place.parent / f".{target.place.name}.not-there")
    return tuple(item for item in items if item.path.split(b"/")[0] != os.fsencode(KEPT))


def described(target: Target) -> dict[str, Any]:
    """What `changes` would be, as `--dry-run` shows it."""
    items = changes(target)
    deleted = [item for item in items if item.flags.startswith("*")]
    new = [item for item in items if item.flags.endswith("+++++++++")]
    return {
        "tree": display(target.entry.mount_name),
        "place": display(target.place),
        "new": len(new),
        "removed": len(deleted),
        "changed": len(items) - len(new) - len(deleted),
        "items": [f"{item.flags:11} {display(item.path)}" for item in items[:SHOWN]],
    }
