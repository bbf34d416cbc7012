"""Whether two directories are the same in everything that a copy must keep: a line per path, with its content's SHA-256."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from stackward.core.errors import StackwardError
from stackward.core.model import display
from stackward.tools import manifest


@dataclass(frozen=True, slots=True)
class Proof:
    """What both directories hold. `digest` is the SHA-256 of the lines of either."""

    paths: int
    bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class _Line:
    path: bytes
    facts: tuple[object, ...]
    size: int

    @property
    def text(self) -> bytes:
        return b"%b %s\0" % (self.path, repr(self.facts).encode())


def prove(one: Path, other: Path) -> Proof:
    """Read both to the last byte.

    Raises:
        StackwardError: they differ; it names the first path that does.
        OSError: something cannot be read.
    """
    digest = hashlib.sha256()
    paths = size = 0
    for here, there in zip_longest(_lines(os.fsencode(one)), _lines(os.fsencode(other))):
        if here != there:
            path = min(line.path for line in (here, there) if line is not None)
            raise StackwardError(f"{display(path) or '.'} is not the same in {display(one)} and {display(other)}")
        digest.update(here.text)
        paths, size = paths + 1, size + here.size
    return Proof(paths, size, digest.hexdigest())


def _lines(root: bytes) -> Iterator[_Line]:
    """In an order that depends on the names alone. Of a file with several names, each line says which is the first."""
    first: dict[int, bytes] = {}
    todo = [b""]
    while todo:
        path = todo.pop()
        full = os.path.join(root, path) if path else root
        status = os.lstat(full)
        yield _line(full, path, status, first)
        if stat.S_ISDIR(status.st_mode):
            todo += sorted((os.path.join(path, name) for name in os.listdir(full)), reverse=True)


def _line(full: bytes, path: bytes, status: os.stat_result, first: dict[int, bytes]) -> _Line:
    content: object = None
    size = 0
    if stat.S_ISREG(status.st_mode):
        content, size = manifest.hash_file(full), status.st_size
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(full)
    linked = None
    if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
        linked = first.setdefault(status.st_ino, path)
    xattrs = sorted((name, os.getxattr(full, name, follow_symlinks=False)) for name in _xattrs(full))
    owner = (status.st_mode, status.st_uid, status.st_gid, status.st_rdev, status.st_mtime_ns)
    return _Line(path, (*owner, content, linked, xattrs), size)


def _xattrs(full: bytes) -> list[str]:
    """Without those of a security module, which belong to the place and not to the file."""
    return [name for name in os.listxattr(full, follow_symlinks=False) if not name.startswith("security.selinux")]
