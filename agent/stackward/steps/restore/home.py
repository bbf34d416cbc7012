"""Directories in which restores make new things and keep old ones: outside of what containers can write to.

A rename has to reach it, so it is on the same mount, file system and subvolume as the tree, and as far up as that allows.
"""

from __future__ import annotations

import os
from pathlib import Path

from stackward.config import Settings
from stackward.tools import beneath, filesystem

KEPT = ".stackward-kept"


def outside(place: Path, run_id: str, settings: Settings) -> Path:
    """The directory of this run for what is at `place`, a real path; it is not made yet.

    A subvolume as a whole can be renamed to anywhere on its mount, anything else only within its own subvolume.
    """
    return _highest(place, settings) / KEPT / run_id


def within(place: Path, run_id: str) -> Path:
    """The same for a tree that is a mount point, which no rename leaves: in it, under a name of this run alone."""
    return place / f"{KEPT}-{run_id}"


def is_ours(path: Path, run_id: str) -> bool:
    """Tell whether a directory has the name that this module (of any version) gives to what `run_id` keeps."""
    if path.name == f"{KEPT}-{run_id}":
        return True
    return path.name == run_id and path.parent.name == KEPT


def can_rename(place: Path, home: Path) -> bool:
    """Tell whether a rename leads from `place`, which need not be there, into `home`, of which at least a parent is there."""
    above, target = _existing(place.parent), _existing(home)
    table = filesystem.mounts()
    same_mount = filesystem.mount_of(above, table).point == filesystem.mount_of(target, table).point
    return same_mount and os.lstat(above).st_dev == os.lstat(target).st_dev


def _highest(place: Path, settings: Settings) -> Path:
    table = filesystem.mounts()
    at = _existing(place.parent)
    limit = _limit(place, at, filesystem.mount_of(at, table).point, settings)
    moves_freely = filesystem.is_subvolume(place)
    device = os.lstat(at).st_dev
    while at != limit and limit in at.parents and (moves_freely or os.lstat(at.parent).st_dev == device):
        at = at.parent
    return at


def _limit(place: Path, parent: Path, mount_point: Path, settings: Settings) -> Path:
    """No higher than what is ours to write to; of a named volume its own directory, since Docker takes others for volumes."""
    volumes = Path(os.path.realpath(settings.docker_volumes))
    if volumes in parent.parents:
        return volumes / place.relative_to(volumes).parts[0]
    roots = [Path(os.path.realpath(root)) for root in (settings.docker_root, settings.volume)]
    around = [root for root in roots if root == parent or root in parent.parents]
    bounds = [*around, *([mount_point] if mount_point != Path("/") else [])]
    return max(bounds, key=lambda bound: len(bound.parts), default=parent)


def _existing(directory: Path) -> Path:
    while beneath.status(directory) is None and directory != directory.parent:
        directory = directory.parent
    return directory
