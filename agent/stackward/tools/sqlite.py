"""SQLite's online backup of a database in a directory that a container can write: consistent, and of that very file.

SQLite opens the database, its log and its index of that by their full names, and resolves links itself. So it runs in a program
of its own, whose root is the directory.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
from contextlib import closing
from pathlib import Path

from stackward.core.errors import StackwardError
from stackward.core.model import display
from stackward.tools import beneath, process, tree_root

_PROGRAM = Path(__file__).with_name("sqlite_jailed.py")


class SqliteError(StackwardError):
    """There is no whole copy of a database."""


def copy(root: Path, path: bytes, target: Path) -> None:
    """Copy the database at `path` below the directory `root`, while it is in use, into the new file `target`.

    No link on the way is followed, nor is the file one. What is copied was checked for damage.

    Raises:
        SqliteError: it is no database that can be copied.
        LinkOnTheWayError: a symbolic link stands on the way.
    """
    where = display(root / os.fsdecode(path))
    target.unlink(missing_ok=True)
    try:
        with (
            beneath.opened(root, beneath.DIRECTORY) as top,
            beneath.parent(path, below=top) as (directory, name),
            tree_root.looked_at(name, directory) as (_, status),
        ):
            if not stat.S_ISREG(status.st_mode):
                raise SqliteError(f"{where} is no file")
            argv: list[process.Argument] = [sys.executable, "-I", "-S", _PROGRAM, name, os.path.abspath(target)]
            process.run(argv, cwd=Path(f"/proc/self/fd/{directory}"))
        with closing(sqlite3.connect(target)) as made:
            damage = made.execute("PRAGMA quick_check(1)").fetchone()[0]
    except FileNotFoundError as error:
        raise SqliteError(
            f"{where} is not there", hint="stackward.backup.dump takes sqlite:PATH as the container sees it"
        ) from error
    except process.CommandError as error:
        raise SqliteError(f"{where}: {error.stderr_tail or error.message}") from error
    except (OSError, sqlite3.Error) as error:
        raise SqliteError(f"{where}: {error}") from error
    if damage != "ok":
        raise SqliteError(f"{where}: the database is damaged: {damage}")
