"""The SQLite file: opened, made, moved aside when it is damaged.

WAL, so that readers never wait for a run; every commit is synced, since holds keep backups from being pruned. Names go
in as BLOBs of their bytes and times as UTC text of one width, which sorts as time does.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from stackward.core import records
from stackward.core.errors import RefusedError, StackwardError
from stackward.core.model import display
from stackward.store import rescue

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stackward.tools.locks import Locks

BUSY_SECONDS = 30.0
# A slow disk may take long over a commit; nobody's transaction takes this long.
LOCKED_SECONDS = 120.0
_AGAIN_SECONDS = 1.0
# Each brings a database from the version of its place in this list to the next one. What was released is never edited.
# A version before may come back and use what these made, so they only add: tables, and columns with defaults that are true
# of a row which does not state them. What needs more than that adds its word to the note "requires" (core/records).
_MIGRATIONS = (
    """
CREATE TABLE run (
    id TEXT PRIMARY KEY, job TEXT NOT NULL, trigger TEXT NOT NULL, started_at TEXT NOT NULL, ended_at TEXT,
    outcome TEXT, reasons TEXT NOT NULL DEFAULT '[]', counts TEXT NOT NULL DEFAULT '{}',
    artifacts TEXT NOT NULL DEFAULT '[]', exit_code INTEGER NOT NULL DEFAULT 0, details TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX run_by_job ON run (job, started_at);
CREATE TABLE run_stack (
    run TEXT NOT NULL REFERENCES run (id) ON DELETE CASCADE, stack BLOB NOT NULL, outcome TEXT NOT NULL,
    reasons TEXT NOT NULL, counts TEXT NOT NULL, standstill_seconds REAL, artifact BLOB NOT NULL,
    PRIMARY KEY (run, stack)
);
CREATE INDEX run_stack_by_stack ON run_stack (stack, run);
CREATE TABLE opted_in (stack BLOB PRIMARY KEY, at TEXT NOT NULL);
CREATE TABLE held (
    stack BLOB NOT NULL, tree BLOB NOT NULL, reason TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (stack, tree)
);
CREATE TABLE accepted (stack BLOB PRIMARY KEY, at TEXT NOT NULL);
CREATE TABLE verified (artifact BLOB PRIMARY KEY, at TEXT NOT NULL, outcome TEXT NOT NULL, damaged INTEGER NOT NULL);
CREATE TABLE note (key TEXT PRIMARY KEY, value TEXT NOT NULL);
""",
    # What metrics ask at every scrape is kept beside the history, which is long, and of which old parts are forgotten.
    """
CREATE TABLE latest (
    job TEXT NOT NULL, stack BLOB NOT NULL, ended_at TEXT NOT NULL, outcome TEXT NOT NULL, success_at TEXT,
    duration_seconds REAL NOT NULL, standstill_seconds REAL, PRIMARY KEY (job, stack)
);
CREATE TABLE run_total (job TEXT NOT NULL, outcome TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (job, outcome));
CREATE TABLE alert (
    scope TEXT NOT NULL, key BLOB NOT NULL, text TEXT NOT NULL, since TEXT NOT NULL, PRIMARY KEY (scope, key)
);
CREATE TABLE notice (
    id INTEGER PRIMARY KEY AUTOINCREMENT, channel TEXT NOT NULL, kind TEXT NOT NULL, title TEXT NOT NULL,
    body TEXT NOT NULL, at TEXT NOT NULL, next_at TEXT NOT NULL, tries INTEGER NOT NULL DEFAULT 0,
    told TEXT NOT NULL DEFAULT '[]'
);
INSERT INTO run_total SELECT job, outcome, count(*) FROM run WHERE outcome IS NOT NULL GROUP BY job, outcome;
INSERT INTO latest
    SELECT job, x'', max(ended_at), outcome, NULL, (julianday(ended_at) - julianday(started_at)) * 86400, NULL
    FROM run WHERE outcome IS NOT NULL AND outcome != 'skipped' GROUP BY job;
INSERT INTO latest
    SELECT job, stack, max(ended_at), run_stack.outcome, NULL, 0, standstill_seconds
    FROM run_stack JOIN run ON run.id = run WHERE run_stack.outcome != 'skipped' AND stack != x'' GROUP BY job, stack;
UPDATE latest SET success_at =
    (SELECT max(ended_at) FROM run WHERE run.job = latest.job AND outcome IN ('ok', 'warn')) WHERE stack = x'';
UPDATE latest SET success_at = (
    SELECT max(ended_at) FROM run_stack JOIN run ON run.id = run
    WHERE run.job = latest.job AND run_stack.stack = latest.stack AND run_stack.outcome IN ('ok', 'warn')
) WHERE stack != x'';
""",
    # What drills proved outlives the runs that did.
    """
CREATE TABLE IF NOT EXISTS drill (
    stack BLOB PRIMARY KEY, at TEXT NOT NULL, outcome TEXT NOT NULL, artifact BLOB NOT NULL, proofs TEXT NOT NULL,
    reasons TEXT NOT NULL, success_at TEXT, success_artifact BLOB
);
""",
    # Of what was found damaged before, nobody knows whose it was.
    """
ALTER TABLE verified ADD COLUMN stacks TEXT NOT NULL DEFAULT '[""]';
""",
    # What the last good drill counted, which the next one must not fall far below.
    """
ALTER TABLE drill ADD COLUMN counted TEXT;
""",
    # When it counted that: a drill from an older backup is good, too, and counts nothing for the next one.
    """
ALTER TABLE drill ADD COLUMN counted_at TEXT;
UPDATE drill SET counted_at = success_at WHERE counted IS NOT NULL;
""",
)


class NewerStoreError(RefusedError):
    """A newer version of the appliance made the store, and this one could misunderstand it."""


class Database:
    """One connection, usable from any thread, one statement at a time."""

    def __init__(self, path: Path, connection: sqlite3.Connection, warning: str = "") -> None:
        self._path = path
        self._file = _identity(path)
        self._connection = connection
        self._lock = threading.RLock()
        self.warning = warning

    @classmethod
    def open(cls, path: Path, *, now: datetime, locks: Locks, busy_seconds: float = BUSY_SECONDS) -> Self:
        """The database at `path`, made if it is not there.

        A damaged one is moved aside (`.damaged-…`) and begun anew, so is one that somebody holds locked against readers,
        and `warning` says so: a lost history is no reason to stop backing up.

        Raises:
            NewerStoreError: a newer version made it, and requires what this one does not know. Nothing was written.
            StackwardError: it cannot be opened or made at all.
        """
        try:
            return cls(path, _connect(path, busy_seconds))
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise _error(path, error) from error
        except sqlite3.DatabaseError:
            pass
        with locks.hold("store-repair", wait=True, what="mending the run history"):
            try:
                return cls(path, _connect(path, 3 * busy_seconds))  # somebody else was faster
            except sqlite3.DatabaseError as error:
                if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                    warning = rescue.replace(path, now)
                else:
                    aside = rescue.damaged_aside(path, now)
                    warning = f"the run history was damaged ({error}); it begins anew, the old one is {display(aside)}"
                return cls(path, _connect(path), warning)

    def make_writable(self, now: datetime, locks: Locks, *, patience_seconds: float = LOCKED_SECONDS) -> None:
        """Where somebody holds the file locked and does not let go, go on in a copy; `warning` says so.

        To be called before anything that must not fail. Whoever else has the file open sees it by `is_replaced`.

        Raises:
            StackwardError: there cannot be a copy either.
        """
        if self.is_replaced() or not rescue.is_locked(self._path, patience_seconds):
            return
        with locks.hold("store-repair", wait=True, what="mending the run history"), self._lock:
            try:
                if not self.is_replaced() and rescue.is_locked(self._path, _AGAIN_SECONDS):
                    self.warning = rescue.replace(self._path, now)
                anew = _connect(self._path)
            except (sqlite3.Error, OSError) as error:
                raise StackwardError(f"the run history is locked, and no copy can be made: {error}") from error
            self._connection.close()
            self._connection, self._file = anew, _identity(self._path)

    def is_replaced(self) -> bool:
        """Another file is in its place, or none: somebody found this one damaged. What is written now is lost."""
        return _identity(self._path) != self._file

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction; all of the body's statements take effect or none."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                except BaseException:
                    self._connection.execute("ROLLBACK")
                    raise
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise StackwardError(f"the run history cannot be written: {error}") from error

    def _rows(self, statement: str, parameters: tuple[object, ...] = ()) -> list[sqlite3.Row]:
        with self._lock:
            try:
                return self._connection.execute(statement, parameters).fetchall()
            except sqlite3.Error as error:
                raise StackwardError(f"the run history cannot be read: {error}") from error


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def blob(name: str) -> bytes:
    return os.fsencode(name)


def name_of(value: bytes) -> str:
    return os.fsdecode(value)


def stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _connect(path: Path, busy_seconds: float = BUSY_SECONDS) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
    try:
        connection.row_factory = sqlite3.Row
        _require_understood(connection, path)
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        if connection.execute("PRAGMA user_version").fetchone()[0] < len(_MIGRATIONS):
            _migrate(connection)
        _require_sound(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _require_understood(connection: sqlite3.Connection, path: Path) -> None:
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'note'").fetchall():
        return
    rows = connection.execute("SELECT value FROM note WHERE key = ?", (records.REQUIRES,)).fetchall()
    try:
        for row in rows:
            records.require_features(records.requirements(json.loads(row["value"])))
    except ValueError as error:
        raise NewerStoreError(
            f"the run history {display(path)} is not for this version of the appliance: {error}",
            hint="update the appliance; or, to begin a new history, move the file and its -wal and -shm away",
        ) from error


def _require_sound(connection: sqlite3.Connection) -> None:
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)


def _migrate(connection: sqlite3.Connection) -> None:
    """All steps or none: who is killed in between finds the database as it was."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]  # another process may have been faster
        for script in _MIGRATIONS[version:]:
            for statement in script.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {max(version, len(_MIGRATIONS))}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _error(path: Path, error: sqlite3.Error) -> StackwardError:
    return StackwardError(
        f"the run history {display(path)} cannot be opened: {error}",
        hint="is the state directory writable, and is its disk not full?",
    )
