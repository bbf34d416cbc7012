"""Copies the paths that an account of changes names, and hashes what it copies.

Mostly they are few, and then a program takes longer to start and to end than they do: directories, and files with one name, are
copied here, with all that rsync would keep. Links, special files, files with several names, and very many, are rsync's.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path

from stackward.core.errors import NO_ROOM, AttributeTooLargeError
from stackward.tools import filesystem, rsync

_MANY = 10_000  # rsync copies more of them faster
_CHUNK = 1 << 17  # one that is all zeros becomes a hole: much less would cost more time than it saves room
_ZEROS = bytes(_CHUNK)
_PROPERTIES = "btrfs."  # to have a file compressed, which no other file system understands
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")


def copy(source: Path, target: Path, paths: AbstractSet[bytes], digests: dict[bytes, str]) -> int:
    """Copy what is at these paths (relative to both): directories without what is in them, and without their attributes.

    Nothing that is there is written into. `digests` gets the SHA-256, in hex, of files that were read. Returns how many bytes
    were written.

    Raises:
        DiskFullError, CommandError, OSError: not everything is copied.
    """
    here, there = os.fsencode(source), os.fsencode(target)
    written = 0
    others = set()
    for path in sorted(paths):
        status = os.lstat(_joined(here, path))
        if stat.S_ISDIR(status.st_mode):
            _make_directory(_joined(there, path))
        elif _is_plain(status) and len(paths) <= _MANY:
            digests[path], size = copy_file(_joined(here, path), _joined(there, path))
            written += size
        else:
            others.add(path)
    return written + rsync.copy_named(source, target, others, "--ignore-times")


def copy_attributes(source: Path, target: Path, paths: AbstractSet[bytes]) -> int:
    """Give what is at these paths its attributes, whatever it holds. Returns how many bytes rsync wrote for it all the same.

    Raises:
        DiskFullError, CommandError, OSError: not everything has them.
    """
    here, there = os.fsencode(source), os.fsencode(target)
    plain = {path for path in paths if _is_plain(os.lstat(_joined(here, path)))}
    written = rsync.copy_named(source, target, paths - plain)  # first: it may change the times of directories
    for path in plain:
        take_attributes(_joined(here, path), _joined(there, path))
    return written


def _is_plain(status: os.stat_result) -> bool:
    return stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_nlink == 1)


def _joined(root: bytes, path: bytes) -> bytes:
    return root + b"/" + path if path else root


def copy_file(source: bytes, target: bytes) -> tuple[str, int]:
    """Make `target` anew as a copy of the regular file `source`, with its attributes; other names of what was there stay.

    Holes stay holes, and long runs of zeros become some. Returns the SHA-256 in hex of what was read, and how many bytes
    were written.

    Raises:
        DiskFullError, OSError: there is no whole copy; what there is has another modification time.
    """
    with filesystem.named(target), open(source, "rb", buffering=0) as original:
        with suppress(FileNotFoundError):
            os.unlink(target)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(target, flags, 0o600), "r+b", buffering=0) as made:
            digest, written = copy_content(original.fileno(), made.fileno())
            take_attributes(original.fileno(), made.fileno())
    return digest, written


def _make_directory(target: bytes) -> None:
    with filesystem.named(target), suppress(FileExistsError):
        os.mkdir(target, 0o700)


def take_attributes(source: bytes | int, target: bytes | int) -> None:
    """Owner, mode, times, extended attributes and ACLs of a file or directory; a path must be no symbolic link.

    Raises:
        OSError: it has not all of them.
    """
    status = os.stat(source)
    wanted, found = _extended(source), _extended(target)
    for name in found.keys() - wanted.keys():
        os.removexattr(target, name)
    os.chown(target, status.st_uid, status.st_gid)  # takes set-user-ID bits and capabilities away: before those
    for name, value in wanted.items():
        _set_extended(target, name, value)
    os.chmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def has_attributes_of(source: bytes, target: bytes) -> bool:
    """Whether `target` has all that `take_attributes` would give it, but for the time when it was last read."""
    new, old = os.lstat(source), os.lstat(target)
    if stat.S_ISLNK(new.st_mode):
        return False
    return (new.st_mode, new.st_uid, new.st_gid, new.st_mtime_ns) == (
        old.st_mode,
        old.st_uid,
        old.st_gid,
        old.st_mtime_ns,
    ) and _extended(source) == _extended(target)


def _extended(file: bytes | int) -> dict[str, bytes]:
    """Its extended attributes, of those in the system's own name space only the ACLs, as rsync has it."""
    try:
        names = os.listxattr(file)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return {}
    return {name: os.getxattr(file, name) for name in names if not name.startswith("system.") or name in _ACLS}


def _set_extended(file: bytes | int, name: str, value: bytes) -> None:
    try:
        os.setxattr(file, name, value)
    except OSError as error:
        if error.errno == errno.ENOTSUP and name.startswith(_PROPERTIES):
            return
        if error.errno in NO_ROOM and filesystem.has_room(file):
            raise AttributeTooLargeError.of(name) from error
        raise


def copy_content(source: int, target: int, on_bytes: Callable[[int], None] = lambda _count: None) -> tuple[str, int]:
    """Copy all of an open file into an empty one; holes stay holes. Returns the SHA-256 in hex, and how much was written.

    `on_bytes` hears how many bytes more were read.

    Raises:
        OSError: it is not copied.
    """
    digest = hashlib.sha256()
    written = 0
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    for start, end, is_data in filesystem.data_and_holes(source, 0, size):
        for at in range(start, end, _CHUNK):
            length = min(_CHUNK, end - at)
            chunk = filesystem.read_range(source, at, length) if is_data else _ZEROS[:length]
            digest.update(chunk)
            on_bytes(length)
            if is_data and chunk != _ZEROS[:length]:
                written += filesystem.write_range(target, at, chunk)
    return digest.hexdigest(), written
