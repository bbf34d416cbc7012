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
from stackward.core.artifacts import ID_FILE, LEASE, incoming_name, parse_incoming
from stackward.core.errors import RefusedError, SettingsError
from stackward.core.model import display
from stackward.steps.appliance_id import owner
from stackward.tools import btrfs, filesystem, small_files

REMEMBERED = "backup-root-id"
_ID_BYTES = 4096
_OTHERS_KEPT_SECONDS = 7 * 86400.0


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
    identity = found or _write_identity(settings, now)
    if not remembered:
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        filesystem.write_durably(settings.state_dir / REMEMBERED, f"{identity}\n".encode())
    return identity


def is_usable(settings: Settings) -> bool:
    """Whether `recognise` would take it, as far as can be told without writing to it."""
    try:
        require(settings)
        if os.statvfs(settings.backup_root).f_flag & os.ST_RDONLY:
            return False
        remembered = _read(settings.state_dir / REMEMBERED)
        return not remembered or _read(settings.backup_root / ID_FILE) == remembered
    except (OSError, RefusedError, SettingsError):
        return False


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


def clean_incoming(settings: Settings, prefix: str = incoming_name("", "")) -> list[str]:
    """Remove what a killed run left half made, and name it. The caller holds the lock of those who make such names.

    What another appliance left is its own to remove, unless it has not been touched for seven days.
    """
    parsed = parse_incoming(prefix)
    assert parsed is not None
    root, ours = settings.backup_root, owner(settings)
    leftovers = []
    for name in sorted(os.listdir(root)):
        found = parse_incoming(name)
        if found is None or not found[1].startswith(parsed[1]):
            continue
        if found[0] in ("", ours) or _is_abandoned(root, name):
            leftovers.append(name)
    for name in leftovers:
        btrfs.delete_directory(root / name)
    if leftovers:
        filesystem.sync_path(root)
    return leftovers


def _is_abandoned(root: Path, name: str) -> bool:
    """Untouched for seven days before the lease that is held now was last written: by the share's clock, not by ours."""
    try:
        now, found = os.lstat(root / LEASE), os.lstat(root / name)
    except OSError:
        return False
    return now.st_mtime - max(found.st_mtime, found.st_ctime) > _OTHERS_KEPT_SECONDS


def _write_identity(settings: Settings, now: datetime) -> str:
    root = settings.backup_root
    identity = str(uuid.uuid4())
    incoming = root / incoming_name(owner(settings), f"id-{os.getpid()}")
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
        return small_files.read(path, _ID_BYTES, follow=False).decode("ascii", "replace").partition("\n")[0].strip()
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
