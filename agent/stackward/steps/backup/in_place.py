"""Writes a large file's changed extents into the day's copy of it, so that a backup grows by what changed in the file.

Where the file system tells which extents changed, that is trusted for no byte: afterwards the whole copy is compared with the
original, in the same reading that makes its SHA-256. So the cost is bounded by reading the file twice, not by writing it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

from stackward.core.errors import StackwardError
from stackward.tools import filesystem

SMALLEST_BYTES = 1 << 20  # smaller ones are written anew
_CHUNK = 1 << 20

Extent = tuple[int, int]  # offset and length, bytes


class NotTheSameError(StackwardError):
    """The copy differs from the original where nothing was said to have changed. It has a new modification time."""


def rewrite(source: bytes, target: bytes, extents: Iterable[Extent]) -> tuple[str, int]:
    """Make `target`, a copy of what `source` was, equal to it in content, size and times.

    Holes stay holes. Returns the SHA-256 in hex and how many bytes were written.

    Raises:
        NotTheSameError, DiskFullError, OSError: it is not equal, and whoever compares times sees that.
    """
    with (
        filesystem.named(target),
        open(source, "rb", buffering=0) as original,
        open(target, "r+b", buffering=0) as copy,
    ):
        new, old = original.fileno(), copy.fileno()
        status = os.fstat(new)
        os.ftruncate(old, status.st_size)
        os.utime(old)
        written = sum(_copy(new, old, start, min(start + size, status.st_size)) for start, size in extents)
        digest = _digest_of_both(new, old, target)
        os.utime(old, ns=(status.st_atime_ns, status.st_mtime_ns))
    return digest, written


def _copy(new: int, old: int, start: int, end: int) -> int:
    """Copy a range, its holes as holes. Returns how many bytes it wrote."""
    written = 0
    for begin, stop, is_data in filesystem.data_and_holes(new, start, end):
        if not is_data:
            filesystem.punch_hole(old, begin, stop - begin)
            continue
        for at in range(begin, stop, _CHUNK):
            written += filesystem.write_range(old, at, filesystem.read_range(new, at, min(_CHUNK, stop - at)))
    return written


def _digest_of_both(new: int, old: int, name: bytes) -> str:
    digest = hashlib.sha256()
    at = 0
    while True:
        mine, theirs = os.pread(old, _CHUNK, at), os.pread(new, _CHUNK, at)
        if mine != theirs:
            raise NotTheSameError(f"{os.fsdecode(name)!r} differs after all that changed in it was written")
        if not mine:
            return digest.hexdigest()
        digest.update(mine)
        at += len(mine)
