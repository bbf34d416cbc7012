"""Locks that die with their process: one file per resource, taken with flock.

The file's lines say who took it (the last exclusive holder, or every shared one since): they are for messages; the
kernel's lock is the truth. A free resource's file may stay behind and means nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from stackward.core.errors import BusyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# `is_free` takes a lock for an instant; whoever wants it meanwhile tries again this long before it calls it busy.
_PATIENCE_SECONDS = 0.3
_RETRY_SECONDS = 0.02
_SUFFIX = ".lock"


@dataclass(frozen=True, slots=True)
class Holder:
    """A living process that took a resource; `what` says for which job."""

    pid: int
    what: str


class Locks:
    """The resources of one state directory. Each `hold` is its own: holding twice in one process is busy, too."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextmanager
    def hold(
        self,
        resource: str,
        *,
        shared: bool = False,
        wait: bool = False,
        what: str = "",
        on_wait: Callable[[tuple[Holder, ...]], None] | None = None,
        forget: bool = False,
    ) -> Iterator[None]:
        """Hold `resource` for the body; `forget` removes its file afterwards (for names that are never used again).

        Raises:
            BusyError: somebody else holds it and `wait` is false; the message names the holder.
        """
        path = self._path(resource)
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            if not _try(descriptor, mode, _PATIENCE_SECONDS):
                holders = self.holders(resource)
                if not wait:
                    raise BusyError(f"{resource} is in use by {_names(holders)}", hint="--wait waits until it is done")
                if on_wait is not None:
                    on_wait(holders)
                fcntl.flock(descriptor, mode)
            if not shared:
                os.ftruncate(descriptor, 0)
            os.write(descriptor, _note(what))
            try:
                yield
            finally:
                if forget:
                    path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def is_free(self, resource: str) -> bool:
        """Nobody holds it now, shared or not. Creates nothing."""
        try:
            descriptor = os.open(self._path(resource), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            return _try(descriptor, fcntl.LOCK_EX, 0)
        finally:
            os.close(descriptor)

    def holders(self, resource: str) -> tuple[Holder, ...]:
        """The living processes whose names stand in the file; meaningful while it is not free."""
        try:
            lines = self._path(resource).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return ()
        found = {}
        for line in lines:
            try:
                note = json.loads(line)
                pid, started, what = int(note["pid"]), note["started"], str(note["what"])
            except (ValueError, KeyError, TypeError):
                continue
            if started == _start_time(pid):
                found[pid] = Holder(pid, what)
        return tuple(found.values())

    def held(self) -> dict[str, tuple[Holder, ...]]:
        """What somebody holds now, and who does."""
        resources = [
            os.fsdecode(unquote_to_bytes(os.fsencode(path.name.removesuffix(_SUFFIX))))
            for path in self._directory.glob(f"*{_SUFFIX}")
        ]
        return {resource: self.holders(resource) for resource in resources if not self.is_free(resource)}

    def _path(self, resource: str) -> Path:
        safe = os.fsencode(resource).replace(b"%", b"%25").replace(b"/", b"%2F").replace(b"\0", b"%00")
        return self._directory / f"{os.fsdecode(safe)}{_SUFFIX}"


def _try(descriptor: int, mode: int, patience_seconds: float) -> bool:
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_RETRY_SECONDS)
        else:
            return True


def _note(what: str) -> bytes:
    pid = os.getpid()
    return json.dumps({"pid": pid, "started": _start_time(pid), "what": what}).encode() + b"\n"


def _start_time(pid: int) -> str:
    """When the process began, in ticks: tells it from a later one with the same number. Empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _names(holders: tuple[Holder, ...]) -> str:
    named = ", ".join(f"{holder.what or 'another process'} (process {holder.pid})" for holder in holders)
    return named or "another process"
