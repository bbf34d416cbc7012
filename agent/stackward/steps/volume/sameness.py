"""Whether two directories are the same in everything that a copy must keep: a line per path, with its content's SHA-256."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from stackward.core.errors import StackwardError
from stackward.core.model import display
from stackward.tools import tree_root
from stackward.tools.tree_root import TreeRoot


@dataclass(frozen=True, slots=True)
class Proof:
    """What both directories hold. `digest` is the SHA-256 of the lines of either, `of` the first one's device and inode."""

    paths: int
    bytes: int
    digest: str
    of: tuple[int, int]

    def is_of(self, found: os.stat_result | None) -> bool:
        """Whether that is the directory that was read first. True of no other as long as that one is there."""
        return found is not None and (found.st_dev, found.st_ino) == self.of


@dataclass(frozen=True, slots=True)
class _Line:
    path: bytes
    facts: tuple[object, ...]
    size: int

    @property
    def text(self) -> bytes:
        return b"%b %s\0" % (self.path, repr(self.facts).encode())


def prove(one: TreeRoot, other: TreeRoot) -> Proof:
    """Read both to the last byte, through no symbolic link.

    Raises:
        StackwardError: they differ; it names the first path that does.
        OSError: something cannot be read.
    """
    digest = hashlib.sha256()
    paths = size = 0
    for here, there in zip_longest(_lines(one), _lines(other)):
        if here != there:
            path = min(line.path for line in (here, there) if line is not None)
            raise StackwardError(
                f"{display(path) or '.'} is not the same in {display(one.path)} and {display(other.path)}"
            )
        digest.update(here.text)
        paths, size = paths + 1, size + here.size
    status = os.fstat(one.descriptor)
    return Proof(paths, size, digest.hexdigest(), (status.st_dev, status.st_ino))


def _lines(root: TreeRoot) -> Iterator[_Line]:
    """In an order that depends on the names alone. Of a file with several names, each line says which is the first."""
    first: dict[int, bytes] = {}
    todo = [b""]
    while todo:
        path = todo.pop()
        with root.looked_at(path) as (descriptor, status):
            yield _line(descriptor, path, status, first)
            if stat.S_ISDIR(status.st_mode):
                listed = tree_root.reopened(descriptor)
                try:
                    names = [os.fsencode(name) for name in os.listdir(listed)]
                finally:
                    os.close(listed)
                todo += sorted((os.path.join(path, name) for name in names), reverse=True)


def _line(descriptor: int, path: bytes, status: os.stat_result, first: dict[int, bytes]) -> _Line:
    content: object = None
    size = 0
    if stat.S_ISREG(status.st_mode):
        with open(tree_root.reopened(descriptor), "rb", buffering=0) as opened:
            content, size = hashlib.file_digest(opened, "sha256").hexdigest(), status.st_size
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(b"", dir_fd=descriptor)
    linked = None
    if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
        linked = first.setdefault(status.st_ino, path)
    file = f"/proc/self/fd/{descriptor}"  # which leads to what was opened, also to a link itself
    xattrs = sorted((name, os.getxattr(file, name)) for name in _xattrs(file))
    owner = (status.st_mode, status.st_uid, status.st_gid, status.st_rdev, status.st_mtime_ns)
    return _Line(path, (*owner, content, linked, xattrs), size)


def _xattrs(file: str) -> list[str]:
    """Without those of a security module, which belong to the place and not to the file."""
    return [name for name in os.listxattr(file) if not name.startswith("security.selinux")]
