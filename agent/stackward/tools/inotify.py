"""Changes in directories, through pyinotify: the only module that knows it.

Of pyinotify only the system calls and their constants are used. Its watch manager takes neither names that are not UTF-8
nor the loss of a watch well, and of its events we want two facts: in which directory, and what name.
"""

from __future__ import annotations

import errno
import os
import select
import struct
import warnings
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from stackward.core.errors import StackwardError

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it imports asyncore, which pyasyncore brings back
    import pyinotify

_HEADER = struct.Struct("iIII")  # watch, mask, cookie, length of the name
_READ_BYTES = 1 << 20
_MASK = (
    pyinotify.IN_CLOSE_WRITE
    | pyinotify.IN_CREATE
    | pyinotify.IN_DELETE
    | pyinotify.IN_MOVED_FROM
    | pyinotify.IN_MOVED_TO
    | pyinotify.IN_DELETE_SELF
    | pyinotify.IN_MOVE_SELF
    | pyinotify.IN_ONLYDIR
)
_LOST = pyinotify.IN_IGNORED | pyinotify.IN_DELETE_SELF | pyinotify.IN_MOVE_SELF | pyinotify.IN_UNMOUNT
_NO_ROOM = (errno.ENOSPC, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


class WatchLimitError(StackwardError):
    """The kernel grants no further watches."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to `name` in `directory`; `name` is "" for the directory itself, which is then not watched."""

    directory: Path
    name: str = ""
    is_directory: bool = False


@dataclass(frozen=True, slots=True)
class Events:
    """`overflowed`: there were more than the kernel kept, so anything may have changed."""

    events: tuple[Event, ...] = ()
    overflowed: bool = False


class Inotify:
    """Watches directories themselves, nothing below them. Of one thread."""

    def __init__(self) -> None:
        """Raises WatchLimitError."""
        self._calls = pyinotify.INotifyWrapper.create()
        self._descriptor: int = self._calls.inotify_init()
        if self._descriptor < 0:
            raise _limit(self._calls.get_errno(), "fs.inotify.max_user_instances")
        os.set_inheritable(self._descriptor, False)  # noqa: FBT003 - its own name
        os.set_blocking(self._descriptor, False)
        self._directories: dict[int, Path] = {}

    @property
    def watched(self) -> frozenset[Path]:
        return frozenset(self._directories.values())

    def watch(self, directory: Path) -> bool:
        """False where it is no directory, or gone. Raises WatchLimitError."""
        try:
            descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise _limit(error.errno, "the number of open files") from error
            return False
        try:
            # pyinotify takes no name that is not UTF-8; this one always is.
            watch = self._calls.inotify_add_watch(self._descriptor, f"/proc/self/fd/{descriptor}", _MASK)
        finally:
            os.close(descriptor)
        if watch < 0:
            if self._calls.get_errno() in _NO_ROOM:
                raise _limit(self._calls.get_errno(), "fs.inotify.max_user_watches")
            return False
        self._directories[watch] = directory
        return True

    def keep(self, directories: Iterable[Path]) -> None:
        """Forget all others."""
        kept = set(directories)
        for watch, directory in list(self._directories.items()):
            if directory not in kept:
                self._calls.inotify_rm_watch(self._descriptor, watch)
                del self._directories[watch]

    def read(self, timeout_seconds: float) -> Events:
        """Whatever has happened, once anything has; nothing when time is up."""
        if not select.select([self._descriptor], [], [], max(0.0, timeout_seconds))[0]:
            return Events()
        found: dict[Event, None] = {}
        overflowed = False
        with suppress(BlockingIOError):
            data = os.read(self._descriptor, _READ_BYTES)
            position = 0
            while position < len(data):
                watch, mask, _, length = _HEADER.unpack_from(data, position)
                position += _HEADER.size + length
                name = data[position - length : position].rstrip(b"\0")
                overflowed = overflowed or bool(mask & pyinotify.IN_Q_OVERFLOW)
                directory = self._directories.get(watch)
                if directory is None:
                    continue
                if mask & _LOST:
                    self._lose(watch)
                    found[Event(directory)] = None
                elif name:
                    found[Event(directory, os.fsdecode(name), bool(mask & pyinotify.IN_ISDIR))] = None
        return Events(tuple(found), overflowed)

    def _lose(self, watch: int) -> None:
        """A directory that was moved away would go on telling under its old name."""
        if self._directories.pop(watch, None) is not None:
            self._calls.inotify_rm_watch(self._descriptor, watch)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _limit(number: int, setting: str) -> WatchLimitError:
    return WatchLimitError(f"the kernel grants no further watches: {os.strerror(number)}", hint=f"raise {setting}")
