"""Puts whole trees back in place of what is there.

The copy is made outside of the tree while the stack still runs; only then does the stack stand still, what was there is moved
aside, and the copy takes its name. So a restore that fails half-way has changed nothing, and the standstill is that of a few
renames. Only a tree that is a mount point has no outside that a rename reaches: there the copy is made in it, and all that
mount it stand still from the beginning.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stackward.config import Settings
from stackward.core.errors import DamageError
from stackward.core.model import display
from stackward.core.progress import Progress
from stackward.steps.backup.direct_copy import take_attributes
from stackward.steps.restore import home, kept
from stackward.steps.restore.kept import Entry
from stackward.steps.restore.restore_plan import Target
from stackward.steps.undo import Step
from stackward.steps.verified_copy import Checksums, Copier, LeftOut
from stackward.tools import beneath, btrfs, filesystem, rsync

SHOWN = 1000  # changes that a dry run names; the rest are counted
_OF_THE_FILE_SYSTEM = "lost+found"


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


@dataclass(slots=True)
class Filled:
    """The new tree: counts, what of the backup is left out, by its path in the tree, and what is to be said."""

    transfer: rsync.Transfer
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def replacement(target: Target, run_id: str, settings: Settings) -> Replacement:
    place = target.place
    children = os.path.lexists(place) and filesystem.mount_of(place, filesystem.mounts()).point == place
    where = home.within(place, run_id) if children else home.outside(place, run_id, settings)
    return Replacement(target, where, children)


def prepare(one: Replacement, progress: Progress, checksums: Checksums | None, *, force: bool) -> Filled:
    """Make the copy of a backup's tree, durably; nothing that is in use changes.

    A file that is not as its checksum says is left out, unless `force`.

    Raises:
        DamageError: it is no directory in the backup, or no file of it is good.
        DiskFullError, OSError: there is no whole copy; `home` may hold a part of it.
    """
    source = one.target.source
    found = beneath.status(source)
    if found is None or not stat.S_ISDIR(found.st_mode):
        raise DamageError(
            f"{display(source)} is no directory in the backup", hint="restore an older one with --from DATE"
        )
    _make_new(one)
    copier = Copier(force=force, on_bytes=lambda count: progress.advance(byte_count=count))
    copier.copy(source, one.new, checksums)
    filesystem.sync_filesystem(one.new)
    made = filled(copier)
    done = copier.result
    if done.left_out and not done.files:
        raise DamageError(
            f"no file of {display(one.target.place)} is good in the backup: {display(os.fsdecode(done.left_out[0].path))}"
            f" {done.left_out[0].why}",
            hint="restore an older one with --from DATE, or this one as it is with --force",
        )
    return made


def share(one: Replacement, progress: Progress) -> Filled:
    """As `prepare`, from a source on the same Btrfs: what the two have in common takes no room.

    Raises:
        CommandError, OSError: there is no whole copy.
    """
    source = one.target.source
    beneath.make_directories(one.home)
    if filesystem.is_subvolume(source) and not one.children:
        btrfs.snapshot_all(source, one.new, lambda _nested: True, read_only=False)
        filesystem.sync_filesystem(one.home)
        return Filled(
            rsync.Transfer(files=0, files_changed=0, files_deleted=0, bytes=0, bytes_changed=0, vanished=False)
        )
    _make_new(one)
    copier = Copier(on_bytes=lambda count: progress.advance(byte_count=count))
    copier.copy(source, one.new)
    filesystem.sync_filesystem(one.home)
    return filled(copier)


def _make_new(one: Replacement) -> None:
    beneath.make_directories(one.home)
    if filesystem.is_subvolume(one.target.place) and not one.children:
        btrfs.create_subvolume(one.new)
    else:
        beneath.make_directories(one.new)


def filled(copier: Copier) -> Filled:
    """What came of a copy."""
    done = copier.result
    transfer = rsync.Transfer(
        files=done.files,
        files_changed=done.files,
        files_deleted=0,
        bytes=done.byte_count,
        bytes_changed=done.byte_count,
        vanished=False,
    )
    notes = [f"{display(os.fsdecode(path))} is a device node, and was restored as one" for path in done.devices]
    return Filled(transfer, done.left_out, notes)


def moves_aside(one: Replacement) -> list[Move]:
    """What is there now, and where it goes. Nothing there: no move."""
    place = one.target.place
    if one.children:
        return [Move(place / name, one.old / name) for name in _names(place) if not _stays(one, name)]
    return [Move(place, one.old)] if beneath.status(place) is not None else []


def moves_in(one: Replacement) -> list[Move]:
    place = one.target.place
    if one.children:
        return [Move(one.new / name, place / name) for name in _names(one.new) if not _stays(one, name)]
    return [Move(one.new, place)]


def _names(directory: Path) -> list[str]:
    with beneath.opened(directory, beneath.DIRECTORY) as descriptor:
        return sorted(os.listdir(descriptor))


def _stays(one: Replacement, name: str) -> bool:
    return name in (one.home.name, _OF_THE_FILE_SYSTEM)


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
    """The renames back, of what is at the sources now; to be asked for before the moves."""
    return [
        Step("rename", str(move.destination), str(move.source), identity=beneath.identity(move.source))
        for move in moves
    ]


def carry_out(moves: Sequence[Move]) -> None:
    """Rename, never over anything and through no link; every directory that gained or lost a name is synced."""
    for move in moves:
        beneath.make_directories(move.destination.parent)
        filesystem.rename_new(move.source, move.destination)
    filesystem.sync_parents(*(path for move in moves for path in (move.source, move.destination)))


def adopt_attributes(one: Replacement) -> None:
    """A mount point's own directory gets the owner, mode, times and xattrs that the backup's has."""
    if one.children:
        with (
            beneath.opened(one.new, beneath.DIRECTORY) as made,
            beneath.opened(one.target.place, beneath.DIRECTORY) as place,
        ):
            take_attributes(made, place)


def changes(target: Target) -> tuple[rsync.Item, ...]:
    """What replacing the tree would change, without doing it."""
    if os.path.isdir(target.place):
        items = rsync.differences(target.source, target.place)
    else:
        items = rsync.differences(target.source, target.place.parent / f".{target.place.name}.not-there")
    return items


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
