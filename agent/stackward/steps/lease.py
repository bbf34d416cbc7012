"""The lease of BACKUP_ROOT: of all appliances that have it mounted, one writes to it at a time.

Locks lie in the state directory, so they mean nothing to an appliance on another host that backs up to the same share. The
lease is a file in BACKUP_ROOT itself, made with O_EXCL, which NFS and SMB keep to as well. Its holder rewrites it every minute.
No clock is compared with another host's: a lease is given up for dead by an appliance that has itself seen it unchanged for
ten minutes, on its own monotonic clock. What an appliance finds of its own is of a run that died: a local lock sees to that.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import signal
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from stackward.core.artifacts import LEASE, incoming_name
from stackward.core.errors import NO_ROOM, BusyError, StackwardError
from stackward.core.model import display
from stackward.steps import backup_root
from stackward.steps.appliance_id import appliance_id, owner
from stackward.tools import filesystem, small_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from stackward.config import Settings
    from stackward.tools.locks import Locks

_LOG = logging.getLogger(__name__)
_BYTES = 4096
_SEEN = "lease-seen"
_LOCAL = "backup-root lease"
_HELD = "lease-held"  # while one is, so that what a killed run left is found without a look at a share that may hang
_TRIES = 50
_EMPTY = hashlib.sha256(b"").hexdigest()
_BEAT = re.compile(rb'"beat": "\d{10}"')


@dataclass(frozen=True, slots=True)
class Found:
    """A lease that is there: who has it, as far as that can be read. `key` changes with every sign of life."""

    appliance: str
    host: str
    job: str
    since: str
    key: str

    def __str__(self) -> str:
        if not self.appliance:
            return f"a lease ({LEASE}) that cannot be read"
        job = f" ({display(self.job)})" if self.job else ""
        return f"the appliance of {display(self.host)}{job} since {display(self.since)}"


@dataclass
class Lease:
    """`host` tells the name by which others hear of us. `lost` is called if another appliance took the lease over."""

    settings: Settings
    locks: Locks
    host: Callable[[], str]
    clock: Callable[[], datetime]
    lost: Callable[[], None] = lambda: os.kill(os.getpid(), signal.SIGTERM)
    beat_seconds: float = 60.0
    stale_seconds: float = 600.0
    poll_seconds: float = 5.0
    _unfilled: bool = field(default=False, init=False)  # there was no room for what it says

    @property
    def path(self) -> Path:
        return self.settings.backup_root / LEASE

    @contextmanager
    def held(self, job: str, on_wait: Callable[[str], None] = lambda _text: None) -> Iterator[None]:
        """Hold it for the body. Where BACKUP_ROOT is none that can be written to, nothing is done: the job will say so.

        Raises:
            BusyError: another appliance has it; the message names its host, and since when.
        """
        if not backup_root.is_usable(self.settings):
            yield
            return
        with self.locks.hold(_LOCAL, what=job):
            marker = self.settings.state_dir / _HELD
            crashed = marker.exists()
            marker.touch()
            try:
                content = self._take(job, on_wait, after_crash=crashed)
            except BusyError:
                marker.unlink()
                raise
            if content is None:
                marker.unlink()
                yield
                return
            ending = threading.Event()
            renewing = threading.Thread(target=self._renew, args=(content, ending), name="lease", daemon=True)
            renewing.start()
            try:
                yield
            finally:
                ending.set()
                renewing.join(self.poll_seconds)
                self._release(content)
                marker.unlink(missing_ok=True)

    def take_back(self) -> None:
        """Remove the lease of a run of ours that was killed: others need not wait until they have given it up."""
        marker = self.settings.state_dir / _HELD
        if not marker.exists() or not self.locks.is_free(_LOCAL):
            return
        with suppress(OSError, BusyError), self.locks.hold(_LOCAL):
            found = self.look() if backup_root.is_usable(self.settings) else None
            if found is not None and found.appliance == appliance_id(self.settings):
                self._remove(found)
            marker.unlink(missing_ok=True)

    def pause(self) -> None:
        """Wait before it is tried again."""
        time.sleep(self.poll_seconds)

    def _take(self, job: str, on_wait: Callable[[str], None], *, after_crash: bool) -> bytes | None:
        """Make the lease; returns what it says, or None where BACKUP_ROOT takes no new file.

        `after_crash`: a run of ours was killed that had one, or was about to: then an empty one that stays so is ours.
        """
        content = self._content(job)
        try:
            for _ in range(_TRIES):
                if self._make(content):
                    return content
                found = self.look()
                if found is None:
                    continue
                if after_crash and found.key == _EMPTY:
                    time.sleep(self.poll_seconds)
                    self._remove(found)
                elif found.appliance == appliance_id(self.settings):
                    self._remove(found)
                elif self._is_dead(found, on_wait):
                    self._remove(found)
                    if self._make(content):
                        self._settle(content)
                        return content
        except OSError as error:
            _LOG.warning("%s could not be made: %s", display(self.path), error.strerror)
            if error.errno in NO_ROOM:
                on_wait(f"no room for {LEASE}: another appliance that uses BACKUP_ROOT does not see this run")
            return None
        raise BusyError(f"{LEASE} in BACKUP_ROOT changes all the time", hint="who else writes to BACKUP_ROOT?")

    def _is_dead(self, found: Found, on_wait: Callable[[str], None]) -> bool:
        """Tell whether it has long been unchanged, and stays so while it is watched once more.

        After a time in which nothing could be seen (a server that was down), a holder that lives gets to show itself.

        Raises:
            BusyError: it has not been unchanged for long.
        """
        if not self._is_stale(found):
            raise BusyError(
                f"BACKUP_ROOT is in use by {found}",
                hint="--wait waits until it is done; if it has died, this appliance takes over"
                f" once it has seen no sign of life for {self.stale_seconds / 60:.0f} minutes",
            )
        on_wait(f"taking BACKUP_ROOT over from {found}, of which there has been no sign of life")
        until = time.monotonic() + 1.5 * self.beat_seconds
        while time.monotonic() < until:
            time.sleep(min(self.poll_seconds, self.beat_seconds / 4))
            again = self.look()
            if again is None or again.key != found.key:
                return False
        return True

    def look(self) -> Found | None:
        """The lease that is there; None where there is none. Waits for nothing, whatever lies there, and writes nothing."""
        try:
            content = small_files.read(self.path, _BYTES, follow=False)
        except FileNotFoundError:
            return None
        except OSError:
            return self._of_unreadable()
        key = hashlib.sha256(content).hexdigest()
        try:
            note = json.loads(content)
            appliance, host, job, since = (str(note[name])[:200] for name in ("appliance", "host", "job", "since"))
        except (ValueError, KeyError, TypeError, RecursionError):
            return Found("", "", "", "", key)
        return Found(appliance, host, job, since, key)

    def _of_unreadable(self) -> Found | None:
        try:
            found = os.lstat(self.path)
        except OSError as error:
            return None if error.errno == errno.ENOENT else Found("", "", "", "", f"errno {error.errno}")
        return Found("", "", "", "", f"{found.st_mode} {found.st_ino} {found.st_size} {found.st_mtime_ns}")

    def _content(self, job: str) -> bytes:
        note = {
            "appliance": appliance_id(self.settings),
            "host": self.host()[:200],
            "job": job,
            "since": f"{self.clock():%F %T %Z}",
            "token": uuid.uuid4().hex,
            "beat": "0000000000",
        }
        return json.dumps(note).encode("ascii") + b"\n"

    def _make(self, content: bytes) -> bool:
        """False where there is one. One that could not be filled, for lack of room, is one all the same."""
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            return False
        self._unfilled = False
        try:
            filesystem.write_range(descriptor, 0, content)
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in NO_ROOM:
                os.unlink(self.path)
                raise
            self._unfilled = True
        finally:
            os.close(descriptor)
        return True

    def _is_stale(self, found: Found) -> bool:
        """Seen unchanged for long enough, by this run or by earlier ones since the host was booted."""
        path, boot, now = self.settings.state_dir / _SEEN, _boot(), time.monotonic()
        try:
            seen = json.loads(path.read_bytes())
            if seen["key"] == found.key and seen["boot"] == boot and 0 <= float(seen["at"]) <= now:
                return now - float(seen["at"]) >= self.stale_seconds
        except (OSError, ValueError, KeyError, TypeError):
            pass
        document = {"key": found.key, "boot": boot, "at": now}
        filesystem.write_durably(path, json.dumps(document).encode("ascii"))
        return self.stale_seconds <= 0

    def _remove(self, found: Found) -> None:
        """Take a dead one away: renamed first, so that of two appliances one does it, and one that came meanwhile stays."""
        aside = self.settings.backup_root / incoming_name(owner(self.settings), f"lease-{uuid.uuid4().hex}")
        again = self.look()
        if again is None or again.key != found.key:
            return
        try:
            filesystem.replace(self.path, aside)
        except FileNotFoundError:
            return
        with suppress(OSError):
            os.unlink(aside)  # of a directory, the next backup removes what is left

    def _settle(self, content: bytes) -> None:
        """After a take-over: another that saw the same dead lease may have taken ours for it. Then one of us lets go."""
        time.sleep(min(2.0, self.beat_seconds / 4))
        if not self._is_ours(content):
            found = self.look()
            raise BusyError(f"BACKUP_ROOT was taken over by {found or 'another appliance'} at the same time")

    def _is_ours(self, content: bytes) -> bool:
        """Raises OSError where it cannot be read now."""
        try:
            there = small_files.read(self.path, _BYTES, follow=False)
        except FileNotFoundError:
            return False
        return (self._unfilled and content.startswith(there)) or _BEAT.sub(b"", there) == _BEAT.sub(b"", content)

    def _renew(self, content: bytes, ending: threading.Event) -> None:
        beat, last = 0, time.monotonic()
        while not ending.wait(self.beat_seconds):
            beat += 1
            try:
                # Gone without anybody having had the time to give us up: it was removed by hand.
                ours = self._is_ours(content) or (
                    time.monotonic() - last < self.stale_seconds
                    and not os.path.lexists(self.path)
                    and self._make(content)
                )
                if ours:
                    self._write(_BEAT.sub(b'"beat": "%010d"' % beat, content))
                    last = time.monotonic()
                    continue
            except OSError as error:
                _LOG.warning("%s could not be renewed: %s", display(self.path), error.strerror or error)
                continue
            if not ending.is_set():
                _LOG.error("BACKUP_ROOT was taken over by %s: this run ends", self.look() or "another appliance")
                self.lost()
            return

    def _write(self, content: bytes) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            filesystem.write_range(descriptor, 0, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _release(self, content: bytes) -> None:
        try:
            if self._is_ours(content):
                os.unlink(self.path)
        except OSError as error:
            _LOG.warning("%s could not be removed: %s", display(self.path), error.strerror or error)


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError as error:
        raise StackwardError(f"the kernel's boot ID cannot be read: {error.strerror}") from error
