"""The two ends of a copy: each file is opened by descriptors below the directories that hold them, and no link is followed."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

from stackward.core.errors import DamageError
from stackward.steps.backup.direct_copy import copy_content, take_attributes
from stackward.tools import beneath, filesystem

_FICLONE = 0x40049409  # linux/fs.h: share all blocks of another file of the same file system
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class UnreadableError(DamageError):
    """A file of the source cannot be read; the target has nothing of it."""


class CopyEnds:
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
        with beneath.parent(joined(self._source[1], path), below=self._source[0]) as (directory, name):
            return os.stat(name, dir_fd=directory, follow_symlinks=False)

    def names(self, path: bytes) -> list[bytes]:
        """Names in a directory of the source, in the order of the bytes of the paths in and below it."""
        with (
            beneath.opened(joined(self._source[1], path), beneath.DIRECTORY, below=self._source[0]) as directory,
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
            beneath.opened(joined(self._source[1], path), beneath.DIRECTORY, below=self._source[0]) as here,
            beneath.opened(joined(self._target[1], path), beneath.DIRECTORY, below=self._target[0]) as there,
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
                opening = beneath.opened(joined(self._source[1], path), below=self._source[0])
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
            beneath.parent(joined(self._source[1], path), below=self._source[0]) as (here, old),
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
        """The place for something that is no directory; with `replace`, what is there is removed."""
        with self._there(path) as (directory, name):
            if self._replace:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=directory)
            yield directory, name

    def _there(self, path: bytes) -> AbstractContextManager[tuple[int, bytes]]:
        return beneath.parent(joined(self._target[1], path), below=self._target[0])


def joined(root: bytes, path: bytes) -> bytes:
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
