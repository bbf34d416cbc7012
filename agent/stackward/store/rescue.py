"""When somebody holds the SQLite file locked and does not let go: it is moved aside, and what it holds goes on in a copy.

A stuck process, or a shell in which somebody forgot a transaction, is no reason to stop backing up.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path

from stackward.core.model import display
from stackward.tools import filesystem

_SUFFIXES = ("-wal", "-shm")


def is_locked(path: Path, patience_seconds: float) -> bool:
    """Nobody else could write for that long. A file that is not there, or damaged, is not locked."""
    try:
        with closing(sqlite3.connect(path, timeout=patience_seconds, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        return error.sqlite_errorcode == sqlite3.SQLITE_BUSY
    except sqlite3.DatabaseError:
        return False
    return False


def replace(path: Path, now: datetime) -> str:
    """Put a copy in the place of the locked file, as far as it can be read; returns what happened, in words."""
    fresh, aside = f"{path}.fresh", f"{path}.locked-{now:%Y%m%d_%H%M%S}"
    with suppress(FileNotFoundError):
        os.unlink(fresh)
    copied = _copy(path, fresh)
    # First what belongs to the old file, so that nothing of it is ever taken for the new one's.
    os.link(path, aside)
    for suffix in _SUFFIXES:
        with suppress(FileNotFoundError):
            os.rename(f"{path}{suffix}", f"{aside}{suffix}")
    if copied:
        os.rename(fresh, path)
    else:
        with suppress(FileNotFoundError):
            os.unlink(fresh)
        os.unlink(path)
    goes_on = "it goes on in a copy" if copied else "it could not be read either, and begins anew"
    return f"the run history was held locked by another program; {goes_on}, the old one is {display(aside)}"


def _copy(path: Path, fresh: str) -> bool:
    """In WAL mode a lock keeps nobody from reading."""
    try:
        with closing(sqlite3.connect(path, timeout=1, isolation_level=None)) as source:
            source.execute("VACUUM INTO ?", (fresh,))
        filesystem.sync_path(Path(fresh))
    except (sqlite3.Error, OSError):
        return False
    return True


def damaged_aside(path: Path, now: datetime) -> str:
    """Move a damaged file, and what belongs to it, out of the way; returns where it is."""
    aside = f"{path}.damaged-{now:%Y%m%d_%H%M%S}"
    for suffix in ("", *_SUFFIXES):
        if os.path.exists(f"{path}{suffix}"):
            os.rename(f"{path}{suffix}", f"{aside}{suffix}")
    return aside
