"""What metrics ask at every scrape: kept up to date as runs end, so that nobody counts through the history."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from stackward.core import records
from stackward.core.model import JobResult, Outcome
from stackward.observe.facts import (
    BackupFacts,
    ContainerFacts,
    Facts,
    JobFacts,
    Proven,
    SpaceFacts,
    StackFacts,
    View,
)
from stackward.store.database import Database, blob, name_of, stamp
from stackward.store.rows import outcome_of

if TYPE_CHECKING:
    import sqlite3

_VIEW = "view"
_OUTCOMES = frozenset(outcome.value for outcome in Outcome)
_LATEST = """
INSERT INTO latest (job, stack, ended_at, outcome, success_at, duration_seconds, standstill_seconds)
VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    ended_at = excluded.ended_at, outcome = excluded.outcome, duration_seconds = excluded.duration_seconds,
    success_at = coalesce(excluded.success_at, success_at),
    standstill_seconds = coalesce(excluded.standstill_seconds, standstill_seconds)
"""


class Series(Database):
    """The newest outcomes, the totals, and the last look at the host."""

    def facts(self) -> Facts:
        """Everything the store can tell the outside; a handful of short queries, however long the history is."""
        view = self._rows("SELECT value FROM note WHERE key = ?", (_VIEW,))
        return Facts(
            view=_read_view(view[0]["value"]) if view else None,
            jobs=tuple(_job_facts(row) for row in self._rows("SELECT * FROM latest")),
            totals={
                (row["job"], Outcome(row["outcome"])): row["count"]
                for row in self._rows("SELECT * FROM run_total")
                if row["outcome"] in _OUTCOMES
            },
            drills={
                name_of(row["stack"]): Proven(
                    datetime.fromisoformat(row["success_at"]), name_of(row["success_artifact"])
                )
                for row in self._rows(
                    "SELECT stack, success_at, success_artifact FROM drill WHERE success_at IS NOT NULL"
                )
            },
        )

    def data_version(self) -> int:
        """A number that is another one once somebody else has written; our own writes leave it as it is."""
        return int(self._rows("PRAGMA data_version")[0][0])

    def keep_view(self, view: View) -> None:
        """Replace the last look at the host."""
        text = json.dumps(asdict(view), default=_instant_text)
        with self._writing() as connection:
            connection.execute("INSERT OR REPLACE INTO note (key, value) VALUES (?, ?)", (_VIEW, text))


def note_end(
    connection: sqlite3.Connection, job: str, began_at: str, at: datetime, result: JobResult, *, again: bool
) -> None:
    """A run has ended: bring totals and newest outcomes up to date, in the transaction that records it."""
    if not again:
        connection.execute(
            "INSERT INTO run_total (job, outcome, count) VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET count = count + 1",
            (job, result.outcome.value),
        )
    seconds = max(0.0, (at - datetime.fromisoformat(began_at)).total_seconds())
    whole = [("", result.outcome, None)]
    parts = [(part.stack, part.outcome, part.standstill_seconds) for part in result.stacks if part.stack]
    for stack, outcome, standstill in whole + parts:
        if outcome is Outcome.SKIPPED:
            continue
        success = stamp(at) if outcome in (Outcome.OK, Outcome.WARN) else None
        connection.execute(_LATEST, (job, blob(stack), stamp(at), outcome.value, success, seconds, standstill))


def _job_facts(row: sqlite3.Row) -> JobFacts:
    return JobFacts(
        job=row["job"],
        stack=name_of(row["stack"]),
        ended_at=datetime.fromisoformat(row["ended_at"]),
        outcome=outcome_of(row["outcome"]),
        success_at=_instant(row["success_at"]),
        duration_seconds=row["duration_seconds"],
        standstill_seconds=row["standstill_seconds"],
    )


def _read_view(text: str) -> View | None:
    """What is known of it, whatever another version added; None where that lacks something: the next look replaces it."""
    try:
        document = records.parse(text)
        return View(
            **{
                **records.known(View, document),
                "at": datetime.fromisoformat(document["at"]),
                "stacks": tuple(_stack_facts(entry) for entry in document["stacks"]),
                "spaces": tuple(SpaceFacts(**records.known(SpaceFacts, entry)) for entry in document["spaces"]),
                "backups": tuple(
                    BackupFacts(**{**records.known(BackupFacts, entry), "made_at": _instant(entry["made_at"])})
                    for entry in document["backups"]
                ),
            }
        )
    except (ValueError, TypeError, KeyError):
        return None


def _stack_facts(entry: dict[str, Any]) -> StackFacts:
    containers = tuple(ContainerFacts(**records.known(ContainerFacts, one)) for one in entry["containers"])
    found = records.known(StackFacts, entry)
    return StackFacts(**{**found, "data_at": _instant(entry["data_at"]), "containers": containers})


def _instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _instant_text(value: object) -> str:
    assert isinstance(value, datetime)
    return value.isoformat()
