"""Reading small files that others may have put there: never more than was expected, and never waiting for a pipe."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def read(path: Path | bytes, limit_bytes: int, *, follow: bool = True) -> bytes:
    """The content of a regular file. Unless `follow`, a link is not followed but refused.

    Raises:
        OSError: it cannot be read, is no regular file (EINVAL), a link (ELOOP), or larger than that (EFBIG).
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fsdecode(path))
        content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise OSError(errno.EFBIG, f"larger than {limit_bytes >> 10} KiB", os.fsdecode(path))
    return content
