"""Copies files out of a backup or a snapshot and checks each against its checksum in the same reading.

Both sides are directories that others may write to meanwhile (BACKUP_ROOT on a share, a tree of a running container): all is
opened by descriptor below them, and no link is followed. Owners, modes, times, extended attributes, ACLs, hard links,
holes, links and special files are as in the source.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stackward.steps.copy_ends import CopyEnds, UnreadableError, joined
from stackward.tools import manifest


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that is not as its checksum says, or has none, or is not there. `path` is relative to what was copied."""

    path: bytes
    why: str


@dataclass(slots=True)
class Copied:
    """Counts of what was copied, with `left_out` what is wrong in the source, and the device nodes among it."""

    files: int = 0
    byte_count: int = 0
    left_out: list[LeftOut] = field(default_factory=list)
    devices: list[bytes] = field(default_factory=list)


class Checksums:
    """The lines of a manifest for one directory, met in their order while it is copied.

    `lines` are sorted by path as `sha256sum` paths are compared byte by byte; paths are relative to that directory.
    """

    def __init__(self, lines: Iterable[manifest.Line]) -> None:
        self._lines = iter(lines)
        self._next = next(self._lines, None)
        self.missing: list[bytes] = []

    def of(self, path: bytes) -> str | None:
        """The checksum of the file; lines that come before it belong to files that are not there."""
        while self._next is not None and self._next[1] < path:
            self._skip()
        if self._next is None or self._next[1] != path:
            return None
        digest = self._next[0]
        self._next = next(self._lines, None)
        return digest

    def finish(self) -> None:
        while self._next is not None:
            self._skip()

    def _skip(self) -> None:
        assert self._next is not None
        self.missing.append(self._next[1])
        self._next = next(self._lines, None)


class Copier:
    """One copy, of one or several parts, in which hard links between the parts stay what they are.

    With `force`, what is damaged is copied all the same; what cannot be read never is, and ends a copy that has to be
    `whole`. With `replace`, files that are in the target already are removed first, and directories are merged.
    """

    def __init__(
        self,
        *,
        force: bool = False,
        replace: bool = False,
        whole: bool = False,
        on_bytes: Callable[[int], None] = lambda _count: None,
    ) -> None:
        self.result = Copied()
        self._force = force
        self._replace = replace
        self._whole = whole
        self._on_bytes = on_bytes
        self._links: dict[tuple[int, int], tuple[Path, str]] = {}
        self._called = b""

    def copy(self, source: Path, target: Path, checksums: Checksums | None = None, *, called: bytes = b"") -> None:
        """Make `target` a copy of the file or directory `source`; a directory that is there (empty) is filled.

        Without `checksums` nothing is checked, and blocks are shared where the file system can. `called` is the path by which
        the result names the source.

        Raises:
            LinkOnTheWayError: a directory on the way to either is a link.
            DiskFullError, OSError: it is not all copied.
        """
        self._called = called
        with CopyEnds.opened(source, target, replace=self._replace) as ends:
            self._copy(ends, checksums)
        if checksums is not None:
            checksums.finish()
            for path in checksums.missing:
                self._leave_out(path, "is missing in the backup")

    def copy_chain(
        self,
        source: Path,
        target: Path,
        inner: Sequence[bytes],
        checksums: Checksums | None = None,
        *,
        called: bytes = b"",
    ) -> None:
        """Copy of the directory `source` only what is at the end of `inner`, its names from there, and those directories.

        Raises:
            LinkOnTheWayError, DiskFullError, OSError: it is not all copied.
        """
        with CopyEnds.opened(source, target, replace=self._replace) as ends:
            ends.make_directory(b"")
            deeper = source / os.fsdecode(inner[0]), target / os.fsdecode(inner[0])
            if inner[1:]:
                self.copy_chain(*deeper, inner[1:], checksums, called=called)
            else:
                self.copy(*deeper, checksums, called=called)
            ends.finish_directory(b"")

    def _copy(self, ends: CopyEnds, checksums: Checksums | None) -> None:
        found = ends.source_status(b"")
        if not stat.S_ISDIR(found.st_mode):
            self._other(ends, b"", found, checksums)
            return
        ends.make_directory(b"")
        todo: list[tuple[bytes, Iterator[bytes]]] = [(b"", iter(ends.names(b"")))]
        while todo:
            directory, names = todo[-1]
            name = next(names, None)
            if name is None:
                ends.finish_directory(directory)
                todo.pop()
                continue
            path = directory + b"/" + name if directory else name
            try:
                found = ends.source_status(path)
            except FileNotFoundError:
                continue  # its line, if it has one, tells that it is missing
            if stat.S_ISDIR(found.st_mode):
                ends.make_directory(path)
                todo.append((path, iter(ends.names(path))))
            else:
                self._other(ends, path, found, checksums)

    def _other(self, ends: CopyEnds, path: bytes, found: os.stat_result, checksums: Checksums | None) -> None:
        if stat.S_ISREG(found.st_mode):
            self._file(ends, path, found, checksums)
            return
        if stat.S_ISBLK(found.st_mode) or stat.S_ISCHR(found.st_mode):
            self.result.devices.append(path)
        if not self._linked(ends, path, found, None):
            ends.make_special(path, found)
            self._remember(ends, path, found, "")

    def _file(self, ends: CopyEnds, path: bytes, found: os.stat_result, checksums: Checksums | None) -> None:
        expected = checksums.of(path) if checksums is not None else None
        if checksums is not None and expected is None:
            self._leave_out(path, "has no checksum")
            if not self._force:
                return
        if self._linked(ends, path, found, expected):
            return
        try:
            digest = ends.copy_file(path, share=checksums is None, on_bytes=self._on_bytes)
        except UnreadableError as error:
            if self._whole:
                raise OSError(errno.EIO, error.message, joined(self._called, path)) from error
            self._leave_out(path, error.message)
            return
        if expected is not None and digest != expected:
            self._leave_out(path, "is damaged")
            if not self._force:
                ends.remove(path)
                return
        self.result.files += 1
        self.result.byte_count += found.st_size
        self._remember(ends, path, found, digest)

    def _leave_out(self, path: bytes, why: str) -> None:
        self.result.left_out.append(LeftOut(joined(self._called, path), why))

    def _linked(self, ends: CopyEnds, path: bytes, found: os.stat_result, expected: str | None) -> bool:
        """Give it as another name of what was copied already; that its content is right was checked then."""
        first = self._links.get((found.st_dev, found.st_ino)) if found.st_nlink > 1 else None
        if first is None or (expected is not None and first[1] != expected):
            return False
        ends.link(first[0], path)
        if stat.S_ISREG(found.st_mode):
            self.result.files += 1
            self.result.byte_count += found.st_size
        return True

    def _remember(self, ends: CopyEnds, path: bytes, found: os.stat_result, digest: str) -> None:
        if found.st_nlink > 1:
            self._links[found.st_dev, found.st_ino] = (ends.target_path(path), digest)


def copy(source: Path, target: Path) -> Copied:
    """Copy all of a file or directory as it is, unchecked, sharing blocks where that can be; `target` must not be there.

    Raises:
        LinkOnTheWayError, DiskFullError, OSError: it is not all copied.
    """
    copier = Copier(whole=True)
    copier.copy(source, target, called=os.fsencode(source))
    return copier.result
