"""The errors that somebody branches on, and the table of exit codes.

A message says what failed, on what and why; `hint` says what to do about it.
"""

from __future__ import annotations

import errno
from enum import IntEnum

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)  # what the system says then


class ExitCode(IntEnum):
    """What the process's exit code means (README, "Exit codes")."""

    OK = 0
    FAILED = 1
    USAGE = 2
    DAMAGED = 3
    REFUSED = 4
    BUSY = 75


class StackwardError(Exception):
    """A step failed; the rest of the run may go on."""

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nHINT: {self.hint}" if self.hint else self.message


class SettingsError(StackwardError):
    """Settings or the command line are wrong; nothing was begun."""

    exit_code = ExitCode.USAGE


class DamageError(StackwardError):
    """A backup is not what its checksums say."""

    exit_code = ExitCode.DAMAGED


class DiskFullError(StackwardError):
    """A target has no room left; what was copied so far is unusable."""

    @classmethod
    def at(cls, target: str) -> DiskFullError:
        hint = "make room there (`stackward prune --replaced` if it is BACKUP_ROOT)"
        return cls(f"no space left while copying to {target}", hint=hint)


class AttributeTooLargeError(StackwardError):
    """An extended attribute does not fit into a file of the target's file system."""

    @classmethod
    def of(cls, name: str, path: str = "") -> AttributeTooLargeError:
        hint = "leave the file out with stackward.backup.exclude, or have BACKUP_ROOT on Btrfs or XFS"
        where = f"{path}: " if path else ""
        return cls(f"{where}the extended attribute {name} is larger than the target's file system takes", hint=hint)


class RefusedError(StackwardError):
    """Going on could lose data: a wrong disk, a shrunken tree, a damaged source."""

    exit_code = ExitCode.REFUSED


class BusyError(StackwardError):
    """Somebody else holds the lock; trying again later is right."""

    exit_code = ExitCode.BUSY


class Interrupted(BaseException):
    """SIGTERM or SIGINT arrived: unwind, take undo records back, and leave."""
