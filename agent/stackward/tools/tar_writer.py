"""Writes a tar stream of files that others may change meanwhile: each is opened by descriptors, through no symbolic link.

GNU tar opens its members by name: a container that swaps a directory of its stack for a link had it pack what the link leads
to, into a tarball that is restored into that very stack.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from stackward.core.errors import StackwardError
from stackward.core.model import display
from stackward.tools import beneath, filesystem, tar_headers, tree_root

_CHUNK = 1 << 20
_RECORD = 10240  # a tar file is a multiple of that long
_KINDS = {
    stat.S_IFDIR: tar_headers.DIRECTORY,
    stat.S_IFIFO: tar_headers.FIFO,
    stat.S_IFCHR: tar_headers.CHARACTER,
    stat.S_IFBLK: tar_headers.BLOCK_DEVICE,
    stat.S_IFLNK: tar_headers.SYMLINK,
}


class UnreadableError(StackwardError):
    """Some members could not be read; what was written is no whole archive. `names` are theirs."""

    def __init__(self, said: dict[bytes, str]) -> None:
        lines = [f"{display(name)}: {why}" for name, why in said.items()]
        super().__init__("cannot be read: " + "; ".join(lines[:20]))
        self.names = tuple(sorted(said))


@dataclass(slots=True)
class Writer:
    """Hands a tar stream to `write`, in large pieces. `base` is an open directory, which relative names are below.

    Absolute names are put below `outside`, and refused without it.
    """

    base: int
    write: Callable[[bytes], object]
    outside: bytes = b""
    warnings: list[str] = field(default_factory=list)
    unreadable: dict[bytes, str] = field(default_factory=dict)
    _linked: dict[tuple[int, int], bytes] = field(default_factory=dict)
    _buffer: bytearray = field(default_factory=bytearray)
    _written: int = 0
    _directory: tuple[bytes, int] | None = None
    _broken: OSError | None = None

    def add_all(self, members: Iterable[bytes]) -> None:
        """Write exactly these, directories without what is in them, and the end of the archive.

        Raises:
            UnreadableError: some could not be read, for another reason than that they were gone. All others were.
        """
        try:
            for name in members:
                self._add(name)
        finally:
            if self._directory is not None:
                os.close(self._directory[1])
                self._directory = None
        if self.unreadable:
            raise UnreadableError(self.unreadable)
        self._put(bytes(2 * tar_headers.BLOCK))
        self._put(bytes(-(self._written + len(self._buffer)) % _RECORD))
        self._flush()

    def _add(self, name: bytes) -> None:
        try:
            self._put_member(name)
        except beneath.LinkOnTheWayError:
            self._warn(name, "a symbolic link took the place of a directory on the way to it, and is not followed")
        except FileNotFoundError:
            self._warn(name, "vanished while it was read")
        except OSError as error:
            if error is self._broken:
                raise
            self.unreadable[name] = os.strerror(error.errno or errno.EIO)

    def _warn(self, name: bytes, what: str) -> None:
        self.warnings.append(f"{display(name)}: {what}")

    def _put_member(self, name: bytes) -> None:
        stored = self.outside + name if name.startswith(b"/") else name
        with tree_root.looked_at(os.path.basename(name), self._parent(name)) as (descriptor, status):
            kind = stat.S_IFMT(status.st_mode)
            if kind == stat.S_IFSOCK:
                self._warn(name, "socket ignored")
                return
            inode = (status.st_dev, status.st_ino)
            several = kind != stat.S_IFDIR and status.st_nlink > 1
            if several and inode in self._linked:
                self._put(tar_headers.member(stored, status, tar_headers.HARD_LINK, link=self._linked[inode]))
                return
            if kind == stat.S_IFREG:
                file = tree_root.reopened(descriptor)
                try:
                    self._put_file(file, name, stored, status, _attributes(file))
                finally:
                    os.close(file)
            else:
                records = _attributes(f"/proc/self/fd/{descriptor}")
                link = os.readlink(b"", dir_fd=descriptor) if kind == stat.S_IFLNK else b""
                shown = stored + b"/" if kind == stat.S_IFDIR else stored
                self._put(tar_headers.member(shown, status, _KINDS[kind], link=link, records=records))
            if several:
                self._linked[inode] = stored

    def _put_file(
        self, file: int, name: bytes, stored: bytes, status: os.stat_result, records: list[tuple[bytes, bytes]]
    ) -> None:
        size = status.st_size
        pieces, chart, stored_as = [(0, size)] if size else [], b"", b""
        if status.st_blocks * tar_headers.BLOCK < size:
            found = [(start, end) for start, end, is_data in filesystem.data_and_holes(file, 0, size) if is_data]
            if found != pieces:
                pieces = found
                stored_as, more, chart = tar_headers.sparse(stored, size, pieces)
                records = [*more, *records]
        length = len(chart) + sum(end - start for start, end in pieces)
        self._put(
            tar_headers.member(stored, status, tar_headers.REGULAR, size=length, records=records, stored_as=stored_as)
        )
        self._put(chart)
        missing = sum(self._put_range(file, start, end) for start, end in pieces)
        self._put(tar_headers.padding(length))
        now = os.fstat(file)
        if missing:
            self._warn(name, f"File shrank by {missing} bytes; padding with zeros")
        elif (now.st_size, now.st_ctime_ns) != (size, status.st_ctime_ns):
            self._warn(name, "file changed as we read it")

    def _put_range(self, file: int, start: int, end: int) -> int:
        """Write a range, zeros for what is not there any more. Returns how many those were."""
        at = start
        while at < end and (chunk := os.pread(file, min(_CHUNK, end - at), at)):
            self._put(chunk)
            at += len(chunk)
        for rest in range(at, end, _CHUNK):
            self._put(bytes(min(_CHUNK, end - rest)))
        return end - at

    def _parent(self, name: bytes) -> int:
        directory = os.path.dirname(name)
        if not directory:
            return self.base
        if self._directory is None or self._directory[0] != directory:
            if directory.startswith(b"/") and not self.outside:
                raise ValueError(f"an absolute name: {name!r}")
            below = None if directory.startswith(b"/") else self.base
            opened = beneath.open_path(directory, beneath.DIRECTORY, below=below)
            if self._directory is not None:
                os.close(self._directory[1])
            self._directory = (directory, opened)
        return self._directory[1]

    def _put(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= _CHUNK:
            self._flush()

    def _flush(self) -> None:
        data, self._buffer = bytes(self._buffer), bytearray()
        self._written += len(data)
        try:
            self.write(data)
        except OSError as error:
            self._broken = error
            raise


def _attributes(file: int | str) -> list[tuple[bytes, bytes]]:
    """The records for its extended attributes: of an open file, or of the name in /proc of what is open as a path."""
    found = {}
    try:
        for name in os.listxattr(file):
            with suppress(OSError):  # removed since
                found[name] = os.getxattr(file, name)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EOPNOTSUPP):
            raise
    return tar_headers.attributes(found) if found else []
