"""Reading small files that others may have put there: never more than was expected, and never waiting for a pipe."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from stackward.tools import beneath

if TYPE_CHECKING:
    from pathlib import Path


def read(path: Path | bytes, limit_bytes: int, *, follow: bool = True) -> bytes:
    """The content of a regular file. Unless `follow`, no link on the way or in its place is followed; the path is a real one.

    Raises:
        OSError: it cannot be read, is no regular file (EINVAL), a link (ELOOP), or larger than that (EFBIG).
    """
    descriptor = os.open(path, beneath.READ) if follow else _opened(path)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fsdecode(path))
        content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise OSError(errno.EFBIG, f"larger than {limit_bytes >> 10} KiB", os.fsdecode(path))
    return content


def _opened(path: Path | bytes) -> int:
    try:
        return beneath.open_path(path)
    except beneath.LinkOnTheWayError as error:
        raise OSError(errno.ELOOP, "a symbolic link, which is not followed", os.fsdecode(path)) from error
