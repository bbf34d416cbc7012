"""Puts things that were made outside a tree into it, and gets out what was there, by descriptors while containers run.

Where a rename reaches, names are swapped. Into a subvolume or a mount no rename leads from outside: there the thing is copied
beside its place first, and takes its name then.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stackward.steps.verified_copy import Copier
from stackward.tools import beneath, btrfs, filesystem

_TEMPORARY = ".stackward-incoming-"


def swap(one: Path, other: Path) -> None:
    """Exchange two names that a rename can exchange; both are there."""
    if filesystem.exchange(one, other):
        return
    aside = one.with_name(f"{one.name}.{uuid.uuid4().hex}")
    filesystem.rename_new(one, aside)
    filesystem.rename_new(other, one)
    filesystem.rename_new(aside, other)


def bring(copied_from: Path, place: Path) -> None:
    """Have a copy of `copied_from` at `place`, in one step for those who look; what was there is gone then.

    Raises:
        LinkOnTheWayError, DiskFullError, OSError: it is not there, and what was there is.
    """
    with beside(copied_from, place) as made:
        settle(made, place)


@contextmanager
def beside(copied_from: Path, place: Path, copier: Copier | None = None) -> Iterator[Path]:
    """A copy in the directory that holds `place`, to be given its name; removed on leaving if it still has its own.

    With the same `copier`, what several copies have hard linked stays so.
    """
    made = place.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
    try:
        (copier or Copier(whole=True)).copy(copied_from, made)
        filesystem.sync_filesystem(made.parent)
        yield made
    finally:
        btrfs.delete_directory(made)


def settle(made: Path, place: Path) -> None:
    """Give `made`, in the same directory, the name `place`; what had it is deleted."""
    if beneath.status(place) is None:
        filesystem.rename_new(made, place)
    else:
        swap(made, place)
        btrfs.delete_directory(made)
    filesystem.sync_parents(place)
