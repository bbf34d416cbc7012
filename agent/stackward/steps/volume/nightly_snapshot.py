"""`<volume>/.nightly`: the writable snapshot that staging runs on, made anew every night.

The new one is made first, as `.nightly.new`. Then staging stands still, the names are swapped in one step, staging goes on, and
the old one is deleted. So `.nightly` is never missing, and where the new one cannot be made, staging goes on as it was. A
run that is killed leaves last night's or tonight's; what else it left goes at the next start.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path

from stackward.steps.backup.sources import NIGHTLY
from stackward.steps.volume import snapshots
from stackward.steps.volume.snapshots import WAIT_SECONDS, Deleted
from stackward.tools import btrfs, filesystem

NEW = f"{NIGHTLY}.new"


def rebuild_nightly(
    volume: Path,
    around: AbstractContextManager[object],
    *,
    skip: Sequence[str] = (),
    mounted: Callable[[Path], Sequence[str]] = lambda _path: (),
    wait_seconds: float = WAIT_SECONDS,
    reached: Callable[[str], None] = lambda _point: None,
) -> Deleted:
    """Make `.nightly` a writable snapshot of the volume as it is now. The caller holds the volume's lock.

    `around` is entered for the moment of the swap: whatever uses `.nightly` stands still meanwhile. Returns what became of
    the old one; that it is still in use does not make the new one worse.

    Raises:
        RefusedError, StackwardError: there is no new one, and `around` was not entered.
        Whatever `around` raises; where that is on entering, `.nightly` is as it was.
    """
    snapshots.require(volume)
    clear(volume)
    place, new = volume / NIGHTLY, volume / NEW
    swapped = False
    try:
        with snapshots.explained(volume):
            btrfs.sync(volume)
            btrfs.snapshot_all(volume, new, snapshots.chosen(skip), read_only=False)
            btrfs.sync(volume)
        reached("nightly-made")
        with around:
            with snapshots.explained(volume):
                swapped = _take_place(new, place)
            reached("nightly-swapped")
    except BaseException:
        clear(volume)
        raise
    reached("nightly-resumed")
    if not swapped or not filesystem.is_subvolume(new):
        filesystem.remove_tree(new)
        return Deleted(cleaned=True)
    return snapshots.delete(new, volume=volume, mounted=mounted, wait_seconds=wait_seconds)


def made_at(volume: Path) -> datetime | None:
    """When the data that staging runs on was production's; None where there is no `.nightly`."""
    place = volume / NIGHTLY
    return btrfs.created_at(place) if filesystem.is_subvolume(place) else None


def clear(volume: Path) -> None:
    """Remove what a killed rebuild left; `.nightly` itself stays."""
    left = volume / NEW
    if filesystem.is_subvolume(left):
        btrfs.delete(left)
    else:
        filesystem.remove_tree(left)


def _take_place(new: Path, place: Path) -> bool:
    """Whether something stood there, which is `new` then. On return the names are on disk."""
    stood = os.path.lexists(place)
    if not stood:
        filesystem.rename_new(new, place)
    elif not filesystem.exchange(new, place):
        raise OSError(f"{place} and {new} could not be swapped")
    filesystem.sync_path(place.parent)
    return stood
