"""The program of `tools.sqlite`: copies a database of the directory that it is started in, and that it cannot leave.

It imports nothing of ours, and nothing at all once its root is the directory: what is found there is not the appliance's.

    python -I -S sqlite_jailed.py NAME TARGET
"""

import os
import sqlite3
import sys
from contextlib import closing
from urllib.parse import quote


def main(name: str, target: str) -> None:
    # The target is opened before, and asks for no further file: no journal, no shared memory.
    with closing(sqlite3.connect(target, isolation_level=None)) as copy:
        copy.execute("PRAGMA journal_mode=OFF")
        copy.execute("PRAGMA temp_store=MEMORY")
        sys.path.clear()
        sys.meta_path.clear()
        os.chroot(".")
        os.chdir("/")
        with closing(sqlite3.connect(f"file:/{quote(name)}?mode=ro", uri=True, timeout=30)) as database:
            database.execute("PRAGMA temp_store=MEMORY")
            database.backup(copy, pages=4096)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (OSError, sqlite3.Error) as error:
        print(error, file=sys.stderr)  # noqa: T201 - its only words
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)
