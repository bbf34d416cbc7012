"""Is BACKUP_ROOT the disk that it was last time, and can it be written to?

The first run writes an ID file into BACKUP_ROOT and remembers it under `state_dir`. An empty mount point in place of
the disk, or another disk, has another ID or none: then nothing is written, since the backups would land on the wrong
disk and the right ones would seem to be gone.
"""

from __future__ import annotations

import os
import stat
import uuid
from datetime import datetime
from pathlib import Path

from stackward.config import Settings
from stackward.core.artifacts import ID_FILE, INCOMING_PREFIX
from stackward.core.errors import RefusedError, SettingsError
from stackward.core.model import display
from stackward.tools import btrfs, filesystem

_ID_BYTES = 4096
REMEMBERED = "backup-root-id"


def claim(settings: Settings, now: datetime) -> str:
    """BACKUP_ROOT's ID, after every check that must hold before a backup is written to it.

    Raises:
        RefusedError: as `recognise`, or too little of it is free.
    """
    identity = recognise(settings, now)
    free = filesystem.free_bytes(settings.backup_root)
    if free < settings.minimum_free_bytes:
        raise RefusedError(
            f"BACKUP_ROOT {display(settings.backup_root)} has {free >> 20} MiB free,"
            f" {settings.minimum_free_bytes >> 20} MiB are the least",
            hint="make room (`stackward prune --replaced`), or lower STACKWARD_MINIMUM_FREE",
        )
    return identity


def recognise(settings: Settings, now: datetime) -> str:
    """BACKUP_ROOT's ID, after the checks that must hold before anything in it is changed or removed.

    A root with an ID on an appliance that remembers none (a new host with the old disk) is taken over as it is.

    Raises:
        RefusedError: it is missing, not a directory, read-only, or not the disk that it was.
    """
    root = settings.backup_root
    require(settings)
    if os.statvfs(root).f_flag & os.ST_RDONLY:
        raise RefusedError(
            f"BACKUP_ROOT {display(root)} is mounted read-only",
            hint="look for disk errors in the kernel's log, then mount it read-write",
        )
    remembered = _read(settings.state_dir / REMEMBERED)
    found = _read(root / ID_FILE)
    if remembered and found != remembered:
        raise _other_disk(settings, found)
    identity = found or _write_identity(root, now)
    if not remembered:
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        filesystem.write_durably(settings.state_dir / REMEMBERED, f"{identity}\n".encode())
    return identity


def require(settings: Settings) -> None:
    """BACKUP_ROOT is a directory that can be read; enough for whoever only reads it.

    Raises:
        RefusedError: it is not.
        SettingsError: it lies within DOCKER_ROOT, or the other way round, by way of a symlink.
    """
    root = settings.backup_root
    try:
        mode = os.stat(root).st_mode
    except OSError as error:
        raise RefusedError(
            f"BACKUP_ROOT {display(root)} cannot be used: {error.strerror}",
            hint="is the disk mounted? A new host needs the directory made once: mkdir -p, then start again",
        ) from error
    if not stat.S_ISDIR(mode):
        raise RefusedError(
            f"BACKUP_ROOT {display(root)} is not a directory", hint="set BACKUP_ROOT to the directory for backups"
        )
    real, stacks = Path(os.path.realpath(root)), Path(os.path.realpath(settings.docker_root))
    if real == stacks or real in stacks.parents or stacks in real.parents:
        raise SettingsError(
            f"BACKUP_ROOT {display(root)} is {display(real)}, and DOCKER_ROOT {display(stacks)}",
            hint="one must lie outside the other, or backups would be backed up",
        )


def clean_incoming(settings: Settings, prefix: str = INCOMING_PREFIX) -> list[str]:
    """Remove what a killed run left half made, and name it. The caller holds the lock of those who make such names."""
    assert prefix.startswith(INCOMING_PREFIX)
    root = settings.backup_root
    leftovers = sorted(name for name in os.listdir(root) if name.startswith(prefix))
    for name in leftovers:
        btrfs.delete_directory(root / name)
    if leftovers:
        filesystem.sync_path(root)
    return leftovers


def _write_identity(root: Path, now: datetime) -> str:
    identity = str(uuid.uuid4())
    incoming = root / f"{INCOMING_PREFIX}id-{os.getpid()}"
    content = f"{identity}\nmade by stackward on {now:%Y-%m-%d}\n"
    try:
        filesystem.write_durably(incoming, content.encode(), mode=0o644)
        filesystem.rename_new(incoming, root / ID_FILE)
        filesystem.sync_path(root)
    except FileExistsError:
        incoming.unlink()
        return _read(root / ID_FILE)
    except OSError as error:
        raise RefusedError(
            f"BACKUP_ROOT {display(root)} cannot be written to: {error.strerror}",
            hint="check the disk, its mount options and the directory's owner",
        ) from error
    return identity


def _read(path: Path) -> str:
    """The file's first line, or "" where there is no such file."""
    try:
        return filesystem.read_small(path, _ID_BYTES).decode("ascii", "replace").partition("\n")[0].strip()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise RefusedError(
            f"{display(path)} cannot be read: {error.strerror}", hint="look for disk errors in the kernel's log"
        ) from error


def _other_disk(settings: Settings, found: str) -> RefusedError:
    root = display(settings.backup_root)
    what = f"has another ID file ({display(found)}) than" if found else f"has no ID file ({ID_FILE}), unlike"
    return RefusedError(
        f"BACKUP_ROOT {root} {what} the disk that was backed up to so far",
        hint="is the disk mounted? If this is a new disk on purpose, "
        f"remove {display(settings.state_dir / REMEMBERED)} and run again",
    )
