"""Large files that were renamed: the day's copy gets the new name instead of being made anew, so that a move takes no room.

Which file a new name belongs to is asked of the file system, by the inode number that it had in the last backup's snapshot. That is
no more than a guess: the copy is compared with the original, as any file that is written in place, and copied where it differs.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stackward.steps.backup import in_place
from stackward.tools import btrfs_names, filesystem

_ASIDE = b".stackward-moved"


@dataclass(frozen=True, slots=True)
class Moved:
    """New paths, relative to the tree, and where the day's copy of each is kept until its directory is there."""

    aside: dict[bytes, bytes]

    def place(self, here: bytes, there: bytes, digests: dict[bytes, str]) -> set[bytes]:
        """Give the copies their new names, and what they have become. Returns those that are something else after all.

        `digests` gets the SHA-256 of each of the others.
        """
        others = set()
        for path, kept in self.aside.items():
            filesystem.replace(kept, there + b"/" + path)
            try:
                digests[path], _ = in_place.rewrite(here + b"/" + path, there + b"/" + path, ())
            except in_place.NotTheSameError:
                others.add(path)
        return others


@contextmanager
def set_aside(
    paths: Iterable[bytes], here: bytes, there: bytes, before: Path | None, old_tree: bytes
) -> Iterator[Moved]:
    """Keep the day's copies of large files that have become `paths`, whatever is removed from `there` meanwhile.

    `before` is the last backup's snapshot of the subvolume, `old_tree` the tree in it; without one, nothing is kept.
    """
    directory = os.path.dirname(there) + b"/" + _ASIDE
    found: dict[bytes, bytes] = {}
    try:
        for path in paths:
            old = _copy_of(path, here, there, before, old_tree) if before is not None else None
            if old is not None:
                os.makedirs(directory, mode=0o700, exist_ok=True)
                found[path] = directory + b"/%d" % len(found)
                os.link(old, found[path])
        yield Moved(found)
    finally:
        filesystem.remove_tree(Path(os.fsdecode(directory)))


def _copy_of(path: bytes, here: bytes, there: bytes, before: Path, old_tree: bytes) -> bytes | None:
    """The day's copy of what is now `path`; None where there is none, or it is small, or has another name, too."""
    new = os.lstat(here + b"/" + path)
    if not stat.S_ISREG(new.st_mode) or new.st_size < in_place.SMALLEST_BYTES or new.st_nlink != 1:
        return None
    try:
        names = [os.fsencode(name) for name in btrfs_names.names_of_inode(before, new.st_ino)]
    except (OSError, ValueError):
        return None  # it is new
    if len(names) != 1 or not names[0].startswith(old_tree + b"/"):
        return None
    old = there + b"/" + names[0][len(old_tree) + 1 :]
    try:
        found = os.lstat(old)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return old if stat.S_ISREG(found.st_mode) and (found.st_nlink, found.st_size) == (1, new.st_size) else None
