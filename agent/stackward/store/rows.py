"""What the store hands out: values, not rows of SQLite."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from stackward.core import records
from stackward.core.model import Counts, Outcome
from stackward.store.database import name_of

if TYPE_CHECKING:
    import sqlite3

# A run's details beyond this are not kept: the history is no archive of listings.
_DETAILS_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run of a job, or, where `stack` is set, one stack's part of it. `outcome` is None while it goes on."""

    id: str
    job: str
    trigger: str
    started_at: datetime
    ended_at: datetime | None
    outcome: Outcome | None
    reasons: tuple[str, ...] = ()
    counts: Counts = field(default_factory=Counts)
    artifacts: tuple[str, ...] = ()
    exit_code: int = 0
    details: dict[str, Any] | None = None
    stack: str = ""
    standstill_seconds: float | None = None

    @property
    def good(self) -> bool:
        return self.outcome in (Outcome.OK, Outcome.WARN)


@dataclass(frozen=True, slots=True)
class Hold:
    """A stack whose older backups must stay: a tree of it (by its path) shrank."""

    stack: str
    tree: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Verified:
    """When a backup was last read again, and how that ended.

    `damaged` counts files, `stacks` are those they belong to ("": at least one belongs to none).
    """

    at: datetime
    outcome: Outcome
    damaged: int
    stacks: frozenset[str]


def is_damaged(said: Verified | None, stack: str = "") -> bool:
    """Whether something of the backup is damaged, or with `stack`, what it holds of that, or may be; None: never read."""
    if said is None or said.outcome is not Outcome.FAILED:
        return False
    return not stack or bool({stack, ""} & said.stacks)


def outcome_of(word: str) -> Outcome:
    """A word that only a newer version knows counts as failed: then it is looked at."""
    try:
        return Outcome(word)
    except ValueError:
        return Outcome.FAILED


def run_row(row: sqlite3.Row) -> RunRow:
    """From a row of `run`, joined with `run_stack` or not."""
    keys = row.keys()
    of_stack = "stack" in keys
    return RunRow(
        id=row["id"],
        job=row["job"],
        trigger=row["trigger"],
        started_at=datetime.fromisoformat(row["started_at"]),
        ended_at=datetime.fromisoformat(row["ended_at"]) if row["ended_at"] else None,
        outcome=outcome_of(row["outcome"]) if row["outcome"] else None,
        reasons=tuple(json.loads(row["reasons"])),
        counts=Counts(**records.known(Counts, json.loads(row["counts"]))),
        artifacts=((name_of(row["artifact"]),) if row["artifact"] else ())
        if of_stack
        else tuple(json.loads(row["artifacts"])),
        exit_code=row["exit_code"],
        details=None if of_stack else json.loads(row["details"]),
        stack=name_of(row["stack"]) if of_stack else "",
        standstill_seconds=row["standstill_seconds"] if of_stack else None,
    )


def counts_json(counts: Counts) -> str:
    return json.dumps(asdict(counts))


def details_json(details: dict[str, Any]) -> str:
    text = json.dumps(details, default=str)
    return text if len(text) <= _DETAILS_BYTES else json.dumps({"left_out": f"{len(text)} bytes of details"})
