"""After a full scan: copies what changed behind an unchanged size and time, by which the scan goes.

Where there is an account of changes, it names such files; elsewhere they are those with a later ctime.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from stackward.steps.backup import apply_changes, copying
from stackward.steps.backup.changes import Changes
from stackward.tools import rsync

_CHUNK = 1 << 20
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
_COARSE_SECONDS = 1.0  # the kernel stamps files by a clock that is a little behind


def by_account(changes: Changes, source: Path, subvolume: Path, target: Path, base: Path) -> None:
    """Copy the files whose content the account says has changed, and that the scan took for unchanged.

    Those are the ones that still are the last backup's (`base` is its part): all others it has replaced.

    Raises:
        CommandError, OSError: they are not copied.
        ValueError: nor are they where one has too many names for all to be told.
    """
    here, there, last = os.fsencode(source), os.fsencode(target), os.fsencode(base)
    touched = {*changes.content, *changes.extents, *apply_changes.renamed(changes, here, ())}
    unseen = {
        path for path in touched if path and _is_file_of_both(there, last, path) and apply_changes.status_of(here, path)
    }
    others = {name for path in unseen for name in apply_changes.other_names(source, subvolume, path)}
    unseen |= {name for name in others if apply_changes.status_of(there, name)}
    rsync.copy_named(source, target, unseen, "--ignore-times")


def _is_file_of_both(root: bytes, other: bytes, path: bytes) -> bool:
    """Whether a regular file has the same inode number in both; in a snapshot and among hard links it is the same file."""
    one, two = apply_changes.status_of(root, path), apply_changes.status_of(other, path)
    return one is not None and two is not None and stat.S_ISREG(one.st_mode) and one.st_ino == two.st_ino


def by_ctime(source: Path, target: Path, shared: Path | None, since: float) -> None:
    """Copy the files that were touched, differ from their copies, and that the scan took for unchanged.

    Those have a later ctime than `since` (seconds since the epoch), when the last backup's copying began. With `shared`, the
    last backup's part, only files that are that very file are looked at; all others have been copied just now.

    Raises:
        CommandError, OSError: they are not copied.
    """
    here, there = os.fsencode(source), os.fsencode(target)
    changed = []
    for found in copying.walk(target, shared, b"."):
        path = found.path.removeprefix(b"./")
        one, copy = here + b"/" + path, there + b"/" + path
        if (found.known or shared is None) and _was_touched(one, since) and _differs(one, copy):
            changed.append(path)
    rsync.copy_named(source, target, changed, "--ignore-times", "--ignore-missing-args")


def _was_touched(path: bytes, since: float) -> bool:
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISREG(status.st_mode) and status.st_ctime > since - _COARSE_SECONDS


def _differs(one: bytes, other: bytes) -> bool:
    """Whether two files have different content; one that is gone meanwhile does not count."""
    try:
        with _opened(one) as first, _opened(other) as second:
            while True:
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
    """Without waiting, and without following a link: in a live tree anything may be there by now."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileNotFoundError(errno.ENOENT, "no file any more")
        yield file
