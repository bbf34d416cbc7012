"""After a full scan: copies what changed behind an unchanged size and time, by which the scan goes.

Where there is an account of changes, it names such files. Elsewhere they are those that the kernel stamped since, or that are in a
directory which it did: not all of them have changed, and so they are compared. A directory that was renamed over another
leaves the files in it unstamped, and its own modification time as it was.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from stackward.steps.backup import apply_changes, copying
from stackward.steps.backup.changes import Changes
from stackward.tools import btrfs_names, rsync, tree_root
from stackward.tools.tree_root import TreeRoot

_CHUNK = 1 << 20
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
_MANY = 1000  # directories that are remembered
_COARSE_SECONDS = 1.0  # the kernel stamps files by a clock that is a little behind


def by_account(changes: Changes, source: TreeRoot, subvolume: Path, target: Path, base: Path) -> int:
    """Copy the files whose content the account says has changed, and that the scan took for unchanged.

    Those have the size and time that they have in the last backup's part, `base`: all others it has copied. Returns how many
    bytes were copied.

    Raises:
        CommandError, OSError: they are not copied.
    """
    here, there, last = os.fsencode(source.path), os.fsencode(target), os.fsencode(base)
    named = {*changes.content, *changes.extents, *apply_changes.renamed(changes, here, ())}
    found = ((path, source.status(path)) for path in named if path)
    unseen = {
        path
        for path, status in found
        if status is not None
        and apply_changes.status_of(there, path)
        and _is_taken_for_unchanged(status, last + b"/" + path)
    }
    others = btrfs_names.of_shared(subvolume, source.path, unseen)
    unseen |= {name for name in others if apply_changes.status_of(there, name)}
    unseen |= _mixed(source, there, {file for path in unseen if (file := _mixed_perhaps(source, there, path))})
    return rsync.copy_named(source, target, unseen, "--ignore-times")


def by_ctime(source: TreeRoot, target: Path, base: Path, since: float) -> int:
    """Copy the files that may have changed since, differ from their copies, and that the scan took for unchanged.

    `since`: when the last backup's copying began, in seconds since the epoch; `base`: its part. Returns how many bytes were
    copied.

    Raises:
        CommandError, OSError: they are not copied.
    """
    last = os.fsencode(base)

    def is_taken_for_unchanged(path: bytes, _: os.stat_result, copy: os.stat_result) -> bool:
        return _is_taken_for_unchanged(copy, last + b"/" + path)

    changed = touched(source, target, since, is_taken_for_unchanged)
    return rsync.copy_named(source, target, changed, "--ignore-times", "--ignore-missing-args")


def touched(
    source: TreeRoot,
    target: Path,
    since: float,
    is_taken_for_unchanged: Callable[[bytes, os.stat_result, os.stat_result], bool],
    goes_on: Callable[[], None] = lambda: None,
) -> set[bytes]:
    """The files that may have changed since, in seconds since the epoch, and that differ from their copies.

    Files with one name are compared only where `is_taken_for_unchanged` (its path, its status now, the status of the copy):
    others are copied in any case. `goes_on` is called again and again, and may raise.
    """
    there = os.fsencode(target)
    changed: set[bytes] = set()
    origins: dict[int, int] = {}
    mixed: set[tuple[int, int]] = set()
    shared: dict[tuple[int, int], _Names] = {}
    directories = _Directories(source, since - _COARSE_SECONDS)
    for found in copying.walk(target, None, b"."):
        goes_on()
        path = found.path.removeprefix(b"./")
        status = source.status(path)
        if status is None or not stat.S_ISREG(status.st_mode):
            continue
        if not (directories.is_stamped(status) or directories.was_moved(os.path.dirname(path))):
            continue
        copy = os.lstat(there + b"/" + path)
        if status.st_nlink == 1 and not is_taken_for_unchanged(path, status, copy):
            continue
        if origins.setdefault(copy.st_ino, status.st_ino) != status.st_ino:
            mixed.add((copy.st_dev, copy.st_ino))
        differs = _differs(source, path, there + b"/" + path, goes_on)
        if status.st_nlink > 1:
            names = shared.setdefault((status.st_dev, status.st_ino), _Names())
            names.paths.append(path)
            names.differ |= differs
        elif differs:
            changed.add(path)
    changed |= {path for names in shared.values() if names.differ for path in names.paths}
    return changed | _mixed(source, there, mixed)


def parted(source: TreeRoot, target: Path) -> int:
    """Copy the files that are apart and whose copies are one file, which no content tells. Returns how many bytes that was.

    Raises:
        CommandError, OSError: they are not copied.
    """
    there = os.fsencode(target)
    origins: dict[int, int] = {}
    mixed = set()
    for found in copying.walk(target, None, b"."):
        path = found.path.removeprefix(b"./")
        copy, status = os.lstat(there + b"/" + path), source.status(path)
        if copy.st_nlink > 1 and status and origins.setdefault(copy.st_ino, status.st_ino) != status.st_ino:
            mixed.add((copy.st_dev, copy.st_ino))
    return rsync.copy_named(source, target, _mixed(source, there, mixed), "--ignore-times", "--ignore-missing-args")


def _mixed_perhaps(source: TreeRoot, there: bytes, path: bytes) -> tuple[int, int] | None:
    """Device and inode of a copy that may have other names, while the file has just one."""
    one, copy = source.status(path), os.lstat(there + b"/" + path)
    return (copy.st_dev, copy.st_ino) if one is not None and copy.st_nlink > 1 == one.st_nlink else None


def _mixed(source: TreeRoot, there: bytes, files: set[tuple[int, int]]) -> set[bytes]:
    """The names of these files, of what was copied, that are not all names of one file any more."""
    inodes: dict[int, dict[bytes, int]] = {}  # of the copies; their names, and what has each of them now
    if not files:
        return set()
    with tree_root.opened(Path(os.path.realpath(os.fsdecode(there)))) as copies:
        names = list(tree_root.names_of(copies.descriptor, files))
    for name in names:
        if (status := source.status(name)) is not None:
            inodes.setdefault(os.lstat(there + b"/" + name).st_ino, {})[name] = status.st_ino
    return {name for names in inodes.values() if len(set(names.values())) > 1 for name in names}


@dataclass(slots=True)
class _Names:
    """The names of one file, and whether what was copied under any of them is something else."""

    paths: list[bytes] = field(default_factory=list)
    differ: bool = False


@dataclass(slots=True)
class _Directories:
    """The directories of a tree in the order of a walk: which of them, or what they are in, may have been moved."""

    root: TreeRoot
    since: float
    _moved: dict[bytes, bool] = field(default_factory=dict)  # of the directories on the way to the latest

    def is_stamped(self, status: os.stat_result) -> bool:
        return status.st_ctime > self.since

    def was_moved(self, path: bytes) -> bool:
        """Whether it, or one above it, has a new stamp, and not from names that came or went in it."""
        if path in self._moved:
            return self._moved[path]
        above = bool(path) and self.was_moved(os.path.dirname(path))
        if len(self._moved) > _MANY:
            self._moved.clear()
        self._moved[path] = above or self._is_moved(path)
        return self._moved[path]

    def _is_moved(self, path: bytes) -> bool:
        status = self.root.status(path) if path else None
        return status is not None and self.is_stamped(status) and status.st_mtime <= self.since


def _is_taken_for_unchanged(one: os.stat_result, before: bytes) -> bool:
    """Whether a scan by size and time takes a file for that of the last backup; of several names one is enough for that.

    `one` is the file or, in a live tree, where that may have changed again, the copy: it has the time that the scan saw.
    """
    if not stat.S_ISREG(one.st_mode):
        return False
    if one.st_nlink > 1:
        return True
    try:
        was = os.lstat(before)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return (was.st_size, was.st_mtime_ns) == (one.st_size, one.st_mtime_ns)


def _differs(source: TreeRoot, path: bytes, other: bytes, goes_on: Callable[[], None]) -> bool:
    """Whether two files have different content; one that is gone meanwhile does not count."""
    try:
        with open(source.open_file(path), "rb", buffering=0) as first, _opened(other) as second:
            while True:
                goes_on()
                mine, theirs = first.read(_CHUNK), second.read(_CHUNK)
                if mine != theirs:
                    return True
                if not mine:
                    return False
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        return False


@contextmanager
def _opened(path: bytes) -> Iterator[IO[bytes]]:
    """Without waiting, and without following a link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileNotFoundError(errno.ENOENT, "no file any more")
        yield file
