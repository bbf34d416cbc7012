"""Copies files out of a backup or a snapshot and checks each against its checksum in the same reading.

Both sides are directories that others may write to meanwhile (BACKUP_ROOT on a share, a tree of a running container): all is
opened by descriptor below them, and no link is followed. Owners, modes, times, extended attributes, ACLs, hard links,
holes, links and special files are as in the source.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from stackward.core.errors import DamageError
from stackward.steps.backup.direct_copy import copy_content, take_attributes
from stackward.tools import beneath, filesystem, manifest

_FICLONE = 0x40049409  # linux/fs.h: share all blocks of another file of the same file system
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


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

    With `force`, what is damaged is copied all the same; what cannot be read never is. With `replace`, files that are in the
    target already are removed first, and directories are merged.
    """

    def __init__(
        self,
        *,
        force: bool = False,
        replace: bool = False,
        on_bytes: Callable[[int], None] = lambda _count: None,
    ) -> None:
        self.result = Copied()
        self._force = force
        self._replace = replace
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
        with _Ends.opened(source, target, replace=self._replace) as ends:
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
        with _Ends.opened(source, target, replace=self._replace) as ends:
            ends.make_directory(b"")
            deeper = source / os.fsdecode(inner[0]), target / os.fsdecode(inner[0])
            if inner[1:]:
                self.copy_chain(*deeper, inner[1:], checksums, called=called)
            else:
                self.copy(*deeper, checksums, called=called)
            ends.finish_directory(b"")

    def _copy(self, ends: _Ends, checksums: Checksums | None) -> None:
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

    def _other(self, ends: _Ends, path: bytes, found: os.stat_result, checksums: Checksums | None) -> None:
        if stat.S_ISREG(found.st_mode):
            self._file(ends, path, found, checksums)
            return
        if stat.S_ISBLK(found.st_mode) or stat.S_ISCHR(found.st_mode):
            self.result.devices.append(path)
        if not self._linked(ends, path, found, None):
            ends.make_special(path, found)
            self._remember(ends, path, found, "")

    def _file(self, ends: _Ends, path: bytes, found: os.stat_result, checksums: Checksums | None) -> None:
        expected = checksums.of(path) if checksums is not None else None
        if checksums is not None and expected is None and not self._force:
            self._leave_out(path, "has no checksum")
            return
        if self._linked(ends, path, found, expected):
            return
        try:
            digest = ends.copy_file(path, share=checksums is None, on_bytes=self._on_bytes)
        except UnreadableError as error:
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
        self.result.left_out.append(LeftOut(_joined(self._called, path), why))

    def _linked(self, ends: _Ends, path: bytes, found: os.stat_result, expected: str | None) -> bool:
        """Give it as another name of what was copied already; that its content is right was checked then."""
        first = self._links.get((found.st_dev, found.st_ino)) if found.st_nlink > 1 else None
        if first is None or (expected is not None and first[1] != expected):
            return False
        ends.link(first[0], path)
        if stat.S_ISREG(found.st_mode):
            self.result.files += 1
            self.result.byte_count += found.st_size
        return True

    def _remember(self, ends: _Ends, path: bytes, found: os.stat_result, digest: str) -> None:
        if found.st_nlink > 1:
            self._links[found.st_dev, found.st_ino] = (ends.target_path(path), digest)


class UnreadableError(DamageError):
    """A file of the source cannot be read; the target has nothing of it."""


class _Ends:
    """Source and target by the descriptors of the directories that hold them; the paths taken here are below both."""

    def __init__(self, source: tuple[int, bytes], target: tuple[int, bytes], place: Path, *, replace: bool) -> None:
        self._source, self._target, self._place, self._replace = source, target, place, replace

    @classmethod
    @contextmanager
    def opened(cls, source: Path, target: Path, *, replace: bool) -> Iterator[Self]:
        with beneath.parent(source) as here, beneath.parent(target) as there:
            yield cls(here, there, target, replace=replace)

    def target_path(self, path: bytes) -> Path:
        return self._place / os.fsdecode(path) if path else self._place

    def source_status(self, path: bytes) -> os.stat_result:
        with beneath.parent(_joined(self._source[1], path), below=self._source[0]) as (directory, name):
            return os.stat(name, dir_fd=directory, follow_symlinks=False)

    def names(self, path: bytes) -> list[bytes]:
        """Names in a directory of the source, in the order of the bytes of the paths in and below it."""
        with (
            beneath.opened(_joined(self._source[1], path), beneath.DIRECTORY, below=self._source[0]) as directory,
            os.scandir(directory) as entries,
        ):
            names = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
        return [name for name, _ in sorted(names, key=lambda one: one[0] + b"/" if one[1] else one[0])]

    def make_directory(self, path: bytes) -> None:
        with self._there(path) as (directory, name):
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=directory)
            if not stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self.target_path(path)))

    def finish_directory(self, path: bytes) -> None:
        """Give it its attributes: last, since what is made in it changes its times."""
        with (
            filesystem.named(os.fsencode(self.target_path(path))),
            beneath.opened(_joined(self._source[1], path), beneath.DIRECTORY, below=self._source[0]) as here,
            beneath.opened(_joined(self._target[1], path), beneath.DIRECTORY, below=self._target[0]) as there,
        ):
            take_attributes(here, there)

    def copy_file(self, path: bytes, *, share: bool, on_bytes: Callable[[int], None]) -> str:
        """Copy a regular file; returns its SHA-256 in hex, or "" where its blocks are `share`d and it was not read.

        Raises:
            UnreadableError: it cannot be read.
            DiskFullError, OSError: it cannot be written.
        """
        with ExitStack() as stack:
            try:
                opening = beneath.opened(_joined(self._source[1], path), below=self._source[0])
                here = stack.enter_context(opening)
            except OSError as error:
                raise UnreadableError(f"cannot be read: {error.strerror}") from error
            if not stat.S_ISREG(os.fstat(here).st_mode):
                raise UnreadableError("is no file any more")
            directory, name = stack.enter_context(self._vacant(path))
            with filesystem.named(os.fsencode(self.target_path(path))):
                there = os.open(name, _CREATE, 0o600, dir_fd=directory)
                stack.callback(os.close, there)
                try:
                    digest = self._content(here, there, share=share, on_bytes=on_bytes)
                    take_attributes(here, there)
                except UnreadableError:
                    os.unlink(name, dir_fd=directory)
                    raise
        return digest

    def _content(self, here: int, there: int, *, share: bool, on_bytes: Callable[[int], None]) -> str:
        if share:
            with suppress(OSError):
                fcntl.ioctl(there, _FICLONE, here)
                return ""
        try:
            digest, _written = copy_content(here, there, on_bytes)
        except OSError as error:
            if error.errno == errno.EIO:
                raise UnreadableError(f"cannot be read: {error.strerror}") from error
            raise
        return digest

    def make_special(self, path: bytes, found: os.stat_result) -> None:
        """Make a symbolic link, FIFO, socket or device node as in the source, with its attributes."""
        with (
            beneath.parent(_joined(self._source[1], path), below=self._source[0]) as (here, old),
            self._vacant(path) as (there, new),
            filesystem.named(os.fsencode(self.target_path(path))),
        ):
            if stat.S_ISLNK(found.st_mode):
                os.symlink(os.readlink(old, dir_fd=here), new, dir_fd=there)
            else:
                os.mknod(new, found.st_mode, found.st_rdev, dir_fd=there)
            os.chown(new, found.st_uid, found.st_gid, dir_fd=there, follow_symlinks=False)
            _copy_link_attributes(here, old, there, new)
            if not stat.S_ISLNK(found.st_mode):
                _change_mode(there, new, found.st_mode)
            os.utime(new, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=there, follow_symlinks=False)

    def link(self, first: Path, path: bytes) -> None:
        with beneath.parent(first) as (there, old), self._vacant(path) as (directory, name):
            os.link(old, name, src_dir_fd=there, dst_dir_fd=directory, follow_symlinks=False)

    def remove(self, path: bytes) -> None:
        with self._there(path) as (directory, name):
            os.unlink(name, dir_fd=directory)

    @contextmanager
    def _vacant(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """Where to make something that is no directory; with `replace`, what is there is removed."""
        with self._there(path) as (directory, name):
            if self._replace:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=directory)
            yield directory, name

    def _there(self, path: bytes) -> AbstractContextManager[tuple[int, bytes]]:
        return beneath.parent(_joined(self._target[1], path), below=self._target[0])


def copy(source: Path, target: Path) -> Copied:
    """Copy a file or directory as it is, unchecked, sharing blocks where that can be; `target` must not be there.

    Raises:
        LinkOnTheWayError, DiskFullError, OSError: it is not all copied.
    """
    copier = Copier()
    copier.copy(source, target)
    return copier.result


def _joined(root: bytes, path: bytes) -> bytes:
    return b"/".join(filter(None, (root, path)))


def _change_mode(directory: int, name: bytes, mode: int) -> None:
    """Of a special file, which is not opened for that; should a link have taken its place meanwhile, this fails."""
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if stat.S_IFMT(os.fstat(descriptor).st_mode) != stat.S_IFMT(mode):
            raise beneath.LinkOnTheWayError(name)
        os.chmod(f"/proc/self/fd/{descriptor}", stat.S_IMODE(mode))
    finally:
        os.close(descriptor)


def _copy_link_attributes(here: int, old: bytes, there: int, new: bytes) -> None:
    """Extended attributes of what cannot be opened; of links and special files only the system's and trusted ones exist."""
    source, target = f"/proc/self/fd/{here}/".encode() + old, f"/proc/self/fd/{there}/".encode() + new
    try:
        names = os.listxattr(source, follow_symlinks=False)
    except OSError:
        return
    for name in names:
        if not name.startswith("system."):
            os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)
