"""Copies a tree that cannot be snapshotted a second time, while its stack stands still: what changed since the first time."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path

from stackward.steps.backup import unseen
from stackward.steps.backup.day import Day
from stackward.tools import filesystem, process, rsync, tree_root
from stackward.tools.tree_root import TreeRoot


def copy(
    day: Day,
    source: TreeRoot,
    relative: str,
    filters: Sequence[str],
    first: rsync.Transfer,
    since: float,
    remaining: Callable[[], float],
) -> rsync.Transfer:
    """Bring the day's part up to what `source` is now. Returns what both passes did.

    `since`: when the first one began, in seconds since the epoch; `remaining` says for how many seconds more the stack may
    stand still. Where files are hard links to the last backup, none is ever written through: what differs is removed and
    made anew, and nothing else is touched, whatever becomes of the source meanwhile.

    Raises:
        DiskFullError, CommandError, OSError: the part is not what `source` is.
    """
    target = day.place(relative)

    def in_time() -> None:
        if remaining() <= 0:
            raise process.TimeLimitError(["compare", source.path], 1, "", why="not done in the time it was given")

    unseen_files = unseen.touched(source, target, since, _is_taken_for_unchanged, in_time)
    if day.subvolume:
        again = rsync.copy(source, target, filters=filters, time_limit_seconds=remaining())
        options = ("--ignore-times", "--ignore-missing-args")
        written = rsync.copy_named(source, target, unseen_files, *options, time_limit_seconds=remaining())
        again = replace(again, bytes_changed=again.bytes_changed + written)
    else:
        differing = rsync.differences(source, target, filters=filters, time_limit_seconds=remaining())
        gone = {item.path for item in differing if item.is_gone}
        changed = {item.path for item in differing} - gone | unseen_files
        changed |= _other_names(source, os.fsencode(target), changed, in_time)
        again = _made_anew(source, target, gone, changed, first, remaining)
    return replace(
        again,
        files_changed=first.files_changed + again.files_changed,
        files_deleted=first.files_deleted + again.files_deleted,
        bytes_changed=first.bytes_changed + again.bytes_changed,
    )


def _is_taken_for_unchanged(_path: bytes, status: os.stat_result, copy: os.stat_result) -> bool:
    return (status.st_size, status.st_mtime_ns) == (copy.st_size, copy.st_mtime_ns)


def _made_anew(
    source: TreeRoot,
    target: Path,
    gone: AbstractSet[bytes],
    changed: AbstractSet[bytes],
    first: rsync.Transfer,
    remaining: Callable[[], float],
) -> rsync.Transfer:
    there = os.fsencode(target)
    lost = sum(_size(there, path) for path in gone | changed)
    for path in sorted(gone | changed):  # a link to a directory goes before what would be looked for behind it
        _make_room(there + b"/" + path, for_directory=path not in gone and source.is_directory(path))
    written = rsync.copy_named(source, target, changed, "--ignore-missing-args", time_limit_seconds=remaining())
    return replace(
        first,
        files_changed=sum(not source.is_directory(path) for path in changed),
        files_deleted=len(gone),
        bytes=first.bytes - lost + sum(_size(there, path) for path in changed),
        bytes_changed=written,
        vanished=False,
    )


def _other_names(source: TreeRoot, there: bytes, paths: AbstractSet[bytes], in_time: Callable[[], None]) -> set[bytes]:
    """The other names of files among `paths` that have several, as far as they were copied: else those would part."""
    wanted = set()
    for path in paths:
        status = source.status(path)
        if status is not None and not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1:
            wanted.add((status.st_dev, status.st_ino))
    names = tree_root.names_of(source.descriptor, wanted, in_time) if wanted else ()
    return {name for name in names if os.path.lexists(there + b"/" + name)}


def _make_room(old: bytes, *, for_directory: bool) -> None:
    """Remove what was copied before, unless it is a directory and is to be one."""
    if os.path.lexists(old) and not (for_directory and _is_directory(old)):
        filesystem.remove_tree(Path(os.fsdecode(old)))


def _is_directory(path: bytes) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _size(root: bytes, path: bytes) -> int:
    """How much it counts for in rsync's sum."""
    try:
        status = os.lstat(root + b"/" + path)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode) else 0
