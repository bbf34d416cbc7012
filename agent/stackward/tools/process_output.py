"""The part of a command's standard error that is kept: its last lines, and the first one."""

from __future__ import annotations

import os
from collections import deque
from typing import IO

_LINES = 20
_BYTES = 1 << 16
_HEAD_BYTES = 500


class Tail:
    """The last lines of what was said, and the first."""

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque(maxlen=_LINES)
        self._partial = b""
        self._head = b""

    def take(self, chunk: bytes) -> None:
        if len(self._head) < _HEAD_BYTES:
            self._head += chunk[:_HEAD_BYTES]
        *whole, partial = (self._partial + chunk).split(b"\n")
        self._lines.extend(whole)
        self._partial = partial[-_BYTES:]

    @property
    def text(self) -> str:
        return b"\n".join([*self._lines, self._partial]).decode("utf-8", "backslashreplace").strip("\n")

    @property
    def head(self) -> str:
        """The first line; a program that ends in a long account of its state says there what happened."""
        return self._head.partition(b"\n")[0].decode("utf-8", "backslashreplace")


def read_tail(file: IO[bytes]) -> str:
    """The last lines of a file that holds all of it."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _BYTES))
    kept = file.read().decode("utf-8", "backslashreplace").splitlines()[-_LINES:]
    return "\n".join(kept)
