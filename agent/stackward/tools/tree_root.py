"""A directory that is read while others may change it: everything below it is reached by descriptors, and through no link.

A container swaps a directory of its own tree for a symbolic link at any moment. What would be read through the link, another
stack's or the appliance's own, would end in the container's own backup.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from stackward.core.errors import RefusedError
from stackward.tools import beneath


@dataclass(slots=True)
class TreeRoot:
    """An open directory. Paths are relative to it, b"" for itself. `live`: what is in it may change while it is read.

    The directory that was asked for last stays open, since paths mostly come in their order. One thread may use it.
    """

    path: Path
    descriptor: int
    live: bool = True
    _last: tuple[bytes, int] | None = field(default=None, repr=False)

    def status(self, path: bytes) -> os.stat_result | None:
        """The status of a path, links not followed; None if nothing is there, or a link stands on the way."""
        if not path:
            return os.fstat(self.descriptor)
        try:
            return os.stat(os.path.basename(path), dir_fd=self._parent(path), follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError, beneath.LinkOnTheWayError):
            return None

    @contextmanager
    def looked_at(self, path: bytes) -> Iterator[tuple[int, os.stat_result]]:
        """As the function of that name, of a path below.

        Raises:
            LinkOnTheWayError, OSError: it is not there, or a link stands on the way.
        """
        if path:
            with looked_at(os.path.basename(path), self._parent(path)) as found:
                yield found
        else:
            yield self.descriptor, os.fstat(self.descriptor)

    def is_directory(self, path: bytes) -> bool:
        found = self.status(path)
        return found is not None and stat.S_ISDIR(found.st_mode)

    def open_file(self, path: bytes) -> int:
        """A descriptor for reading a regular file, without waiting.

        Raises:
            FileNotFoundError: no regular file is there.
            OSError: it cannot be opened.
        """
        try:
            with looked_at(os.path.basename(path), self._parent(path)) as (descriptor, status):
                if stat.S_ISREG(status.st_mode):
                    return reopened(descriptor)
        except (beneath.LinkOnTheWayError, NotADirectoryError) as error:
            raise FileNotFoundError(errno.ENOENT, "no file any more", os.fsdecode(path)) from error
        raise FileNotFoundError(errno.ENOENT, "no file any more", os.fsdecode(path))

    @contextmanager
    def again(self) -> Iterator[TreeRoot]:
        """The same directory for another thread."""
        other = TreeRoot(self.path, os.dup(self.descriptor), self.live)
        try:
            yield other
        finally:
            other.close()

    def close(self) -> None:
        if self._last is not None:
            os.close(self._last[1])
        self._last = None
        os.close(self.descriptor)

    def _parent(self, path: bytes) -> int:
        directory = os.path.dirname(path)
        if not directory:
            return self.descriptor
        if self._last is None or self._last[0] != directory:
            opened = beneath.open_path(directory, beneath.DIRECTORY, below=self.descriptor)
            if self._last is not None:
                os.close(self._last[1])
            self._last = (directory, opened)
        return self._last[1]


@contextmanager
def opened(path: Path, *, live: bool = True) -> Iterator[TreeRoot]:
    """Open a directory to read what is in it.

    Raises:
        LinkOnTheWayError: a symbolic link stands in its place, or on the way.
        OSError: it cannot be opened.
    """
    root = TreeRoot(path, beneath.open_path(path, beneath.DIRECTORY), live)
    try:
        yield root
    finally:
        root.close()


@contextmanager
def looked_at(name: bytes, directory: int) -> Iterator[tuple[int, os.stat_result]]:
    """Open what has a name in an open directory, a link itself: a descriptor that opens nothing (O_PATH), and its status."""
    if not name or b"/" in name or name in (b".", b".."):
        raise ValueError(f"not a name in a directory: {name!r}")
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        yield descriptor, os.fstat(descriptor)
    finally:
        os.close(descriptor)


def reopened(descriptor: int) -> int:
    """A regular file or directory that was looked at, opened for reading. It is that very one; no device starts."""
    return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)


def entries(directory: bytes, *, below: int) -> Iterator[tuple[os.DirEntry[str], bytes]]:
    """The entries of a directory below an open one, each with its name in bytes. A link in the directory's place raises."""
    with beneath.opened(directory, beneath.DIRECTORY, below=below) as descriptor, os.scandir(descriptor) as listing:
        for entry in listing:
            yield entry, os.fsencode(entry.name)


def names_of(
    root: int, files: AbstractSet[tuple[int, int]], goes_on: Callable[[], None] = lambda: None
) -> Iterator[bytes]:
    """Every path below an open directory of these files (device and inode); what cannot be read is passed over.

    `goes_on` is called for every directory, and may raise.
    """
    inodes = {inode for _, inode in files}
    todo = [b""]
    while todo:
        directory = todo.pop()
        goes_on()
        with suppress(OSError, RefusedError):
            for entry, name in entries(directory, below=root):
                path = directory + b"/" + name if directory else name
                if entry.is_dir(follow_symlinks=False):
                    todo.append(path)
                elif entry.inode() in inodes and (entry.stat(follow_symlinks=False).st_dev, entry.inode()) in files:
                    yield path


def count_files(path: Path, *, enough: int) -> int:
    """Regular files below `path`, counted no further than `enough`. What cannot be read counts as nothing."""
    count = 0
    todo = [b""]
    with suppress(OSError, RefusedError), opened(path) as root:
        while todo and count < enough:
            directory = todo.pop()
            with suppress(OSError, RefusedError):
                for entry, name in entries(directory, below=root.descriptor):
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(directory + b"/" + name if directory else name)
                    elif entry.is_file(follow_symlinks=False):
                        count += 1
    return count
