"""Removes a file, a directory or a subvolume, whatever is in it."""

from __future__ import annotations

from pathlib import Path

from stackward.tools import btrfs, filesystem


def remove(path: Path) -> None:
    """`path` is gone; a symlink itself, never what it points to. What is gone already is fine.

    Raises:
        OSError, CommandError: something in it could not be removed.
    """
    if filesystem.is_subvolume(path):
        btrfs.delete(path)
    else:
        filesystem.remove_tree(path)
