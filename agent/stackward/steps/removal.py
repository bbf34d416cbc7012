"""Removes a file, a directory or a subvolume, whatever is in it."""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING

from stackward.tools import process

if TYPE_CHECKING:
    from pathlib import Path

_SUBVOLUME_INODE = 256


def remove(path: Path) -> None:
    """`path` is gone; a symlink itself, never what it points to. What is gone already is fine.

    Raises:
        OSError, CommandError: something in it could not be removed.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(path)
    elif status.st_ino != _SUBVOLUME_INODE or not _delete_subvolume(path):
        shutil.rmtree(os.fsencode(path))


def _delete_subvolume(path: Path) -> bool:
    return process.run(["btrfs", "subvolume", "delete", "--commit-after", "--", path], ok=(0, 1)).returncode == 0
