"""`.nightly`, the writable snapshot of the volume that staging instances run on: made anew, and put in place in one step."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from pathlib import Path

from stackward.core.errors import RefusedError
from stackward.core.model import display
from stackward.steps.sources import NIGHTLY, OURS
from stackward.tools import btrfs, filesystem

_NEW = ".nightly-incoming"


def place(volume: Path) -> Path:
    return volume / NIGHTLY


def require(volume: Path) -> None:
    """Raises RefusedError where the volume can have no snapshots."""
    if not filesystem.is_subvolume(volume):
        raise RefusedError(
            f"{display(volume)} is no Btrfs subvolume: there is nothing that staging could run on",
            hint="set STACKWARD_VOLUME to the Btrfs volume, mounted at the same path in the appliance",
        )


def rebuild(volume: Path, around: AbstractContextManager[object]) -> float:
    """Make a new `.nightly`; `around` is entered only for the swap. Returns how many seconds that took.

    There is always a `.nightly` once there was one: the old one until the new one takes its name.
    """
    new = volume / _NEW
    btrfs.delete(new)
    btrfs.sync(volume)
    btrfs.snapshot(volume, new, read_only=False)
    for nested in btrfs.nested_subvolumes(volume):
        if nested.path.parts[0] not in (OURS, NIGHTLY, _NEW) and filesystem.is_subvolume(volume / nested.path):
            (new / nested.path).rmdir()
            btrfs.snapshot(volume / nested.path, new / nested.path, read_only=False)
    with around:
        began = time.monotonic()
        old = place(volume)
        if old.exists():
            filesystem.exchange(new, old)
        else:
            new.rename(old)
        filesystem.sync_path(volume)
        seconds = time.monotonic() - began
    btrfs.delete(new)
    return seconds
