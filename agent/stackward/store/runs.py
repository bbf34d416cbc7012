"""The history of runs."""

from __future__ import annotations

import json
import re
import secrets
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import TYPE_CHECKING

from stackward.core.model import JobResult, Outcome, StackResult
from stackward.store.database import Database, blob, stamp
from stackward.store.rows import RunRow, counts_json, details_json, run_row
from stackward.store.series import note_end

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Sequence

INTERRUPTED = "interrupted"

_STACK_COLUMNS = (
    "run.id, job, trigger, started_at, ended_at, run_stack.outcome, run_stack.reasons, run_stack.counts,"
    " run_stack.artifact, exit_code, stack, standstill_seconds"
)
_PARTS = "run_stack JOIN run ON run.id = run"
_GOOD = "('ok', 'warn')"
_NO_NEWS = "IN ('ok', 'skipped')"
_NEWEST = "ORDER BY run.rowid DESC LIMIT ?"  # as they were begun, whatever the clock said
_FORGET = f"""
DELETE FROM run WHERE started_at < ?
AND id NOT IN (SELECT id FROM (SELECT id, max(rowid) FROM run GROUP BY job))
AND id NOT IN (
    SELECT run FROM (
        SELECT run, max(run.rowid) FROM run_stack JOIN run ON run.id = run
        WHERE run_stack.outcome IN {_GOOD} GROUP BY stack, job
    )
)
"""  # noqa: S608 - put together from constants of this module; values are parameters


_IDLE = "idle "  # of the notes' keys; then the job's name

RUN_ID = re.compile(r"\d{8}T\d{6}-[0-9a-f]{6}")


def new_run_id(at: datetime) -> str:
    """A name for a run: fit for file names, sorts by time."""
    return f"{at.astimezone(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


class RunLog(Database):
    """Runs as they begin and end; a row per run, and one per stack in it."""

    def begin_run(self, job: str, at: datetime, trigger: str, *, run_id: str = "") -> str:
        """Note that a run begins; the returned id ends it."""
        run_id = run_id or new_run_id(at)
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO run (id, job, trigger, started_at) VALUES (?, ?, ?, ?)", (run_id, job, trigger, stamp(at))
            )
        return run_id

    def end_run(self, run_id: str, at: datetime, result: JobResult) -> None:
        """Note how it ended. A second end replaces the first (an interrupted run that ended after all).

        Totals only ever grow: they count the first end.
        """
        with self._writing() as connection:
            began = connection.execute("SELECT job, started_at, ended_at FROM run WHERE id = ?", (run_id,)).fetchone()
            if began is not None:
                again = began["ended_at"] is not None
                note_end(connection, began["job"], began["started_at"], at, result, again=again)
            connection.execute(
                "UPDATE run SET ended_at = ?, outcome = ?, reasons = ?, counts = ?, artifacts = ?, exit_code = ?,"
                " details = ? WHERE id = ?",
                (
                    stamp(at),
                    result.outcome.value,
                    json.dumps(result.reasons),
                    counts_json(result.counts),
                    json.dumps(result.artifacts),
                    result.exit_code,
                    details_json(result.details),
                    run_id,
                ),
            )
            connection.execute("DELETE FROM run_stack WHERE run = ?", (run_id,))
            for part in result.stacks:
                _insert_stack(connection, run_id, part)

    def forget_idle(self, run_id: str, why: str) -> None:
        """Of a run that had nothing to do only that it looked is kept, and why there was nothing."""
        with self._writing() as connection:
            began = connection.execute("SELECT job, started_at FROM run WHERE id = ?", (run_id,)).fetchone()
            if began is not None:
                connection.execute("DELETE FROM run WHERE id = ?", (run_id,))
                value = f"{began['started_at']} {why}"
                connection.execute(
                    "INSERT OR REPLACE INTO note (key, value) VALUES (?, ?)", (_IDLE + began["job"], value)
                )

    def forget_run(self, run_id: str) -> None:
        """Nothing was begun after all."""
        with self._writing() as connection:
            connection.execute("DELETE FROM run WHERE id = ?", (run_id,))

    def idle(self, job: str) -> str:
        """Why the job had nothing to do when it last looked; "" where a run was recorded since."""
        at, why = self._idle(job)
        rows = self._rows("SELECT 1 FROM run WHERE job = ? AND started_at > ? LIMIT 1", (job, at))
        return "" if rows else why

    def _idle(self, job: str) -> tuple[str, str]:
        rows = self._rows("SELECT value FROM note WHERE key = ?", (_IDLE + job,))
        at, _, why = str(rows[0]["value"]).partition(" ") if rows else ("", "", "")
        return at, why

    def runs(
        self, job: str | None = None, stack: str | None = None, limit: int = 50, *, unless_good: Collection[str] = ()
    ) -> list[RunRow]:
        """The newest runs first; with `stack`, that stack's parts of them. A negative limit is none.

        `unless_good` are jobs whose runs are left out where they ended well, or had nothing to do.
        """
        where, values = ["1"], list[object]()
        if unless_good:
            where.append(f"NOT (job IN ({', '.join('?' * len(unless_good))}) AND coalesce(run.outcome, '') {_NO_NEWS})")
            values += sorted(unless_good)
        if job is not None:
            where.append("job = ?")
            values.append(job)
        if stack is None:
            return self._whole(" AND ".join(where), *values, limit=limit)
        return self._parts(" AND ".join([*where, "stack = ?"]), *values, blob(stack), limit=limit)

    def run(self, run_id: str) -> RunRow | None:
        rows = self._whole("run.id = ?", run_id)
        return rows[0] if rows else None

    def stacks_of(self, run_id: str) -> list[RunRow]:
        """Each stack's part of a run."""
        return self._parts("run.id = ?", run_id)

    def last_run(self, job: str, stack: str | None = None) -> RunRow | None:
        """The newest run, also one that goes on or failed."""
        rows = self.runs(job, stack, 1)
        return rows[0] if rows else None

    def last_begun(self, job: str, now: datetime) -> datetime | None:
        """When the newest run began, however it ended; what seems to be of the future (a wrong clock) does not count."""
        rows = self._rows("SELECT max(started_at) AS at FROM run WHERE job = ? AND started_at <= ?", (job, stamp(now)))
        looked, _ = self._idle(job)
        at = max(rows[0]["at"] or "", looked if looked <= stamp(now) else "")
        return datetime.fromisoformat(at) if at else None

    def durations(self, job: str, limit: int = 10) -> list[timedelta]:
        """How long the newest runs that ended well took."""
        rows = self._whole(f"job = ? AND outcome IN {_GOOD}", job, limit=limit)
        return [row.ended_at - row.started_at for row in rows if row.ended_at is not None]

    def last_success(self, job: str, stack: str | None = None) -> RunRow | None:
        """The newest run that ended ok or with a warning."""
        if stack is None:
            rows = self._whole(f"job = ? AND outcome IN {_GOOD}", job, limit=1)
        else:
            rows = self._parts(f"job = ? AND stack = ? AND run_stack.outcome IN {_GOOD}", job, blob(stack), limit=1)
        return rows[0] if rows else None

    def failures_since_success(self, job: str, stack: str | None = None) -> list[RunRow]:
        """The failed runs after the last good one, newest first."""
        since = takewhile(lambda row: row.outcome not in (Outcome.OK, Outcome.WARN), self.runs(job, stack, -1))
        return [row for row in since if row.outcome is Outcome.FAILED]

    def last_stacks(self, job: str) -> dict[str, RunRow]:
        """Per stack, its newest part of a run of `job`."""
        # Where max() stands, SQLite takes the other columns from the row that has it.
        newest = "max(run.rowid)"
        statement = f"SELECT {_STACK_COLUMNS}, {newest} FROM {_PARTS} WHERE job = ? GROUP BY stack"  # noqa: S608 - as below
        return {row.stack: row for row in map(run_row, self._rows(statement, (job,)))}

    def close_interrupted(self, at: datetime, is_free: Callable[[str], bool]) -> list[RunRow]:
        """End, as failed, the runs that began, never ended, and whose lock (named by the run's id) nobody holds."""
        dead = [row for row in self._whole("ended_at IS NULL") if is_free(row.id)]
        for row in dead:
            self.end_run(row.id, at, JobResult(Outcome.FAILED, (INTERRUPTED,)))
        return dead

    def forget_runs_before(self, at: datetime, jobs: Sequence[str] = ()) -> None:
        """Drop old history, of all or only these jobs; but never a job's newest run, nor the newest good one of a stack."""
        chosen = f" AND job IN ({', '.join('?' * len(jobs))})" if jobs else ""
        with self._writing() as connection:
            connection.execute(_FORGET + chosen, (stamp(at), *jobs))

    def _whole(self, where: str, *values: object, limit: int = -1) -> list[RunRow]:
        statement = f"SELECT * FROM run WHERE {where} {_NEWEST}"  # noqa: S608 - `where` is a constant of the caller
        return [run_row(row) for row in self._rows(statement, (*values, limit))]

    def _parts(self, where: str, *values: object, limit: int = -1) -> list[RunRow]:
        statement = f"SELECT {_STACK_COLUMNS} FROM {_PARTS} WHERE {where} {_NEWEST}"  # noqa: S608 - as above
        return [run_row(row) for row in self._rows(statement, (*values, limit))]


def _insert_stack(connection: sqlite3.Connection, run_id: str, part: StackResult) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO run_stack (run, stack, outcome, reasons, counts, standstill_seconds, artifact)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            run_id,
            blob(part.stack),
            part.outcome.value,
            json.dumps(part.reasons),
            counts_json(part.counts),
            part.standstill_seconds,
            blob(part.artifact),
        ),
    )
