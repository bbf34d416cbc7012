"""Reads what is in BACKUP_ROOT, which may be a share that others write to: by descriptors, regular files only, through no link.

What a link there leads to is no part of a backup, however it is called; a pipe is not waited for, and no device is started.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from stackward.core.artifacts import MANIFEST
from stackward.core.errors import RefusedError
from stackward.tools import beneath, manifest, tree_root
from stackward.tools.tree_root import TreeRoot

_OWN = os.fsencode(MANIFEST)


def real(path: Path) -> Path:
    """A path in BACKUP_ROOT, that may be reached through links of the administrator's; it itself may be none."""
    return Path(os.path.realpath(path.parent)) / path.name


@contextmanager
def opened(path: Path) -> Iterator[TreeRoot]:
    """A data backup's directory.

    Raises:
        LinkOnTheWayError, OSError: it cannot be opened, or is a link.
    """
    with tree_root.opened(real(path)) as root:
        yield root


def open_file(path: Path) -> int:
    """A descriptor for reading a regular file that lies directly in BACKUP_ROOT.

    Raises:
        FileNotFoundError: no regular file is there; a link is none.
        OSError: it cannot be opened.
    """
    with tree_root.opened(Path(os.path.realpath(path.parent))) as root:
        return root.open_file(os.fsencode(path.name))


def read(descriptor: int, limit_bytes: int) -> bytes:
    """The content of an open file, which is closed, if it is no larger than that. Raises OSError, ValueError."""
    with open(descriptor, "rb") as file:
        content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise ValueError(f"it is larger than {limit_bytes >> 20} MiB")
    return content


def directories(path: Path, below: str = "") -> list[str]:
    """The names of the directories in a directory of a data backup; links are none."""
    return _names(path, below, stat.S_ISDIR)


def files(path: Path, below: str = "") -> list[str]:
    """The names of the regular files in a directory of a data backup."""
    return _names(path, below, stat.S_ISREG)


def walk(root: TreeRoot, only: Sequence[bytes] | None = None) -> Iterator[bytes]:
    """Regular files of a backup (less the manifest) by their paths, sorted by path bytes; only in or below some, if given."""
    for start in [b""] if only is None else sorted(only, key=lambda path: path + b"/"):
        status = root.status(start)
        if status is not None and stat.S_ISREG(status.st_mode):
            yield start
        if status is None or not stat.S_ISDIR(status.st_mode):
            continue  # a link is not followed, wherever it leads
        parents = [start + b"/" if start else b""]
        todo = [iter(_entries(root, start))]
        while todo:
            entry = next(todo[-1], None)
            if entry is None:
                todo.pop()
                parents.pop()
            elif entry.endswith(b"/"):
                path = parents[-1] + entry
                todo.append(iter(_entries(root, path[:-1])))
                parents.append(path)
            elif (path := parents[-1] + entry) != _OWN:
                yield path


def lines(root: TreeRoot) -> Iterator[bytes]:
    """The lines of a backup's manifest as they are. Raises OSError."""
    with open(root.open_file(_OWN), "rb") as file:
        yield from manifest.raw_lines(file)


def _entries(root: TreeRoot, directory: bytes) -> list[bytes]:
    """The entries of a directory, sorted as the paths in and below it are; those of directories end in a slash."""
    found = []
    with suppress(FileNotFoundError, NotADirectoryError, beneath.LinkOnTheWayError):  # gone meanwhile
        for entry, name in tree_root.entries(directory, below=root.descriptor):
            if entry.is_dir(follow_symlinks=False):
                found.append(name + b"/")
            elif entry.is_file(follow_symlinks=False):
                found.append(name)
    return sorted(found)


def _names(path: Path, below: str, is_wanted: Callable[[int], bool]) -> list[str]:
    found = []
    with suppress(FileNotFoundError, NotADirectoryError, RefusedError), opened(path) as root:
        for entry, name in tree_root.entries(os.fsencode(below), below=root.descriptor):
            if is_wanted(entry.stat(follow_symlinks=False).st_mode):
                found.append(os.fsdecode(name))
    return sorted(found)
