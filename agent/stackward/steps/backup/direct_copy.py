"""Copies single files and directories with all that rsync would keep, and hashes what it copies.

For the paths that an account of changes names: mostly a few, which take less time than a program takes to start and to end.
"""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import suppress

from stackward.tools import filesystem

_CHUNK = 1 << 17
_ZEROS = bytes(_CHUNK)


def is_plain(status: os.stat_result) -> bool:
    """Whether it is for this module: a directory, or a regular file with one name."""
    return stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_nlink == 1)


def copy_file(source: bytes, target: bytes) -> tuple[str, int]:
    """Make `target` anew as a copy of the regular file `source`, with its attributes; other names of what was there stay.

    Holes stay holes, and long runs of zeros become some. Returns the SHA-256 in hex of what was read, and how many bytes
    were written.

    Raises:
        OSError: there is no whole copy; what there is has a new modification time.
    """
    with open(source, "rb", buffering=0) as original:
        with suppress(FileNotFoundError):
            os.unlink(target)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(target, flags, 0o600), "r+b", buffering=0) as copy:
            digest, written = _copy_content(original.fileno(), copy.fileno())
            take_attributes(original.fileno(), copy.fileno())
    return digest, written


def make_directory(target: bytes) -> None:
    """Make it where it is not there; its attributes are for when all in it is done."""
    with suppress(FileExistsError):
        os.mkdir(target, 0o700)


def take_attributes(source: bytes | int, target: bytes | int) -> None:
    """Owner, mode, times, extended attributes and ACLs of a file or directory; a path must be no symbolic link."""
    status = os.stat(source)
    wanted = {name: os.getxattr(source, name) for name in os.listxattr(source)}
    found = set(os.listxattr(target))
    for name in found - wanted.keys():
        os.removexattr(target, name)
    os.chown(target, status.st_uid, status.st_gid)  # takes set-user-ID bits and capabilities away: before those
    for name, value in wanted.items():
        os.setxattr(target, name, value)
    os.chmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _copy_content(new: int, old: int) -> tuple[str, int]:
    digest = hashlib.sha256()
    written = 0
    size = os.fstat(new).st_size
    os.ftruncate(old, size)
    for start, end, is_data in filesystem.data_and_holes(new, 0, size):
        for at in range(start, end, _CHUNK):
            length = min(_CHUNK, end - at)
            chunk = filesystem.read_range(new, at, length) if is_data else _ZEROS[:length]
            digest.update(chunk)
            if is_data and chunk != _ZEROS[:length]:
                written += filesystem.write_range(old, at, chunk)
    return digest.hexdigest(), written
