"""Writes that a power cut cannot undo: data first, then the directory that names it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def sync_directory(directory: Path) -> None:
    """What was created, renamed or removed in `directory` so far is on disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """`path` holds `data`, or what it held before; nobody ever sees half of it."""
    incoming = _write_incoming(path, data, mode)
    os.replace(incoming, path)
    sync_directory(path.parent)


def create_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """As `write_file`, but only the first of two writers succeeds.

    Raises:
        FileExistsError: the file is there already; it keeps what it holds.
    """
    incoming = _write_incoming(path, data, mode)
    try:
        os.link(incoming, path)
    finally:
        os.unlink(incoming)
    sync_directory(path.parent)


def _write_incoming(path: Path, data: bytes, mode: int) -> Path:
    incoming = path.with_name(f".incoming-{path.name}-{os.getpid()}")
    descriptor = os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return incoming
