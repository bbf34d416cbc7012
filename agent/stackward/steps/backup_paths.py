"""Places of the parts of a data backup: never outside of it, whatever its index says, and through no link.

What lies in BACKUP_ROOT may have been written by others (a share, a replica): each place is checked where it is used.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from stackward.core import artifacts
from stackward.core.errors import RefusedError
from stackward.core.model import display
from stackward.tools import btrfs, filesystem


def place(backup: Path, path: str) -> Path:
    """The part `path` of a backup, be it there or not.

    Raises:
        ValueError: no backup has a part of that name.
        RefusedError: a link is on the way to it, or in its place.
    """
    artifacts.require_path(path)
    if link := _link(backup, path):
        raise RefusedError(
            f"{display(link)} is a symbolic link, which no backup has there",
            hint="who can write to BACKUP_ROOT? `stackward verify` names what else is not as it was",
        )
    return backup / path


def has_link(backup: Path, path: str) -> bool:
    """Tell whether a link is on the way to the part `path` of a backup, or in its place."""
    return _link(backup, artifacts.require_path(path)) is not None


def _link(backup: Path, path: str) -> Path | None:
    found = backup
    for part in path.split("/"):
        found /= part
        if found.is_symlink():
            return found
    return None


def has_plain(backup: Path, path: str) -> bool:
    """Tell whether the backup has that part: a directory that no link leads to."""
    return filesystem.is_plain_directory(backup, artifacts.require_path(path))


def drop_strangers(day: Path) -> None:
    """Of a day that began as a copy of a backup, remove what no backup has above its trees: links, files, odd things.

    What is written into the day later goes by these names.
    """
    ours = (artifacts.MANIFEST, artifacts.INDEX)
    _drop_others(day, ours)
    for part in (artifacts.MOUNTS, artifacts.DUMPS):
        if not filesystem.is_plain_directory(day, part):
            continue
        _drop_others(day / part)
        if part == artifacts.MOUNTS:
            for stack in os.listdir(day / part):
                _drop_others(day / part / stack)


def _drop_others(directory: Path, files: tuple[str, ...] = ()) -> None:
    with os.scandir(directory) as entries:
        found = list(entries)
    for entry in found:
        mode = entry.stat(follow_symlinks=False).st_mode
        if not stat.S_ISDIR(mode) and not (entry.name in files and stat.S_ISREG(mode)):
            btrfs.delete_directory(Path(entry.path))
