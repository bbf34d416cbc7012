"""What the appliance remembers, in SQLite; all SQL is in this package.

Promises that others build on: a hold stays until it is released or accepted; a stack that was opted in stays so until
it is forgotten; names come back byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from stackward.core.model import Outcome
from stackward.store.alerts import Alerts
from stackward.store.database import blob, name_of, stamp
from stackward.store.drills import Drill, Drills
from stackward.store.rows import Hold, RunRow, Verified, is_damaged, outcome_of
from stackward.store.runs import INTERRUPTED, RUN_ID, RunLog, new_run_id
from stackward.store.series import Series
from stackward.store.wishes import Wishes
from stackward.tools.locks import Locks

__all__ = [
    "FILE",
    "INTERRUPTED",
    "RUN_ID",
    "Drill",
    "Hold",
    "RunRow",
    "Store",
    "Verified",
    "is_damaged",
    "locks_in",
    "new_run_id",
    "open_in",
]

FILE = "stackward.sqlite"


class Store(RunLog, Series, Alerts, Wishes, Drills):
    """The history of runs, and what is known of stacks and backups between runs."""

    def remember_opted_in(self, stack: str, at: datetime) -> None:
        with self._writing() as connection:
            connection.execute("INSERT OR IGNORE INTO opted_in (stack, at) VALUES (?, ?)", (blob(stack), stamp(at)))

    def forget_opted_in(self, stack: str) -> None:
        with self._writing() as connection:
            connection.execute("DELETE FROM opted_in WHERE stack = ?", (blob(stack),))

    def was_opted_in(self, stack: str) -> bool:
        return bool(self._rows("SELECT 1 FROM opted_in WHERE stack = ?", (blob(stack),)))

    def opted_in(self) -> frozenset[str]:
        """Every stack that was opted in, also one whose directory is gone."""
        return frozenset(name_of(row["stack"]) for row in self._rows("SELECT stack FROM opted_in"))

    def hold(self, stack: str, tree: str, reason: str, at: datetime) -> None:
        """Keep the stack's backups from being pruned. A hold that is there keeps its date; its reason is renewed."""
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO held (stack, tree, reason, at) VALUES (?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET reason = excluded.reason",
                (blob(stack), blob(tree), reason, stamp(at)),
            )

    def release(self, stack: str) -> None:
        """Every hold of the stack goes."""
        with self._writing() as connection:
            connection.execute("DELETE FROM held WHERE stack = ?", (blob(stack),))

    def holds(self) -> dict[str, Hold]:
        """The held stacks, each with its oldest hold."""
        rows = self._rows("SELECT * FROM held ORDER BY at DESC")
        return {
            name_of(row["stack"]): Hold(
                name_of(row["stack"]), name_of(row["tree"]), row["reason"], datetime.fromisoformat(row["at"])
            )
            for row in rows
        }

    def accept(self, stack: str, at: datetime) -> None:
        """A person said that the stack is meant to be as it is now: holds before `at` go."""
        with self._writing() as connection:
            connection.execute("INSERT OR REPLACE INTO accepted (stack, at) VALUES (?, ?)", (blob(stack), stamp(at)))
            connection.execute("DELETE FROM held WHERE stack = ? AND at <= ?", (blob(stack), stamp(at)))

    def accepted_at(self, stack: str) -> datetime | None:
        rows = self._rows("SELECT at FROM accepted WHERE stack = ?", (blob(stack),))
        return datetime.fromisoformat(rows[0]["at"]) if rows else None

    def record_verified(
        self, artifact: str, at: datetime, outcome: Outcome, damaged: int, stacks: Iterable[str]
    ) -> None:
        """`damaged` counts files, `stacks` are those they belong to ("": at least one belongs to none)."""
        with self._writing() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO verified (artifact, at, outcome, damaged, stacks) VALUES (?, ?, ?, ?, ?)",
                (blob(artifact), stamp(at), outcome.value, damaged, json.dumps(sorted(stacks))),
            )

    def forget_verified(self, artifact: str) -> None:
        """The backup is gone, or was made anew: what was said of it no longer holds."""
        with self._writing() as connection:
            connection.execute("DELETE FROM verified WHERE artifact = ?", (blob(artifact),))

    def narrow_verified(self, artifact: str, stacks: Iterable[str]) -> None:
        """Of the backup only the parts of these stacks, if any, are still what was read: of the others nothing was said."""
        said = self.verified().get(artifact)
        if said is not None:
            carried = set(stacks)
            left = said.stacks & (carried | {""} if carried else carried)
            if said.outcome is Outcome.FAILED and left:
                self.record_verified(artifact, said.at, said.outcome, said.damaged, left)
            else:
                self.forget_verified(artifact)

    def copy_verified(self, artifact: str, to: str) -> None:
        """What was said of `artifact` holds for `to` as well, if anything was."""
        with self._writing() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO verified (artifact, at, outcome, damaged, stacks)"
                " SELECT ?, at, outcome, damaged, stacks FROM verified WHERE artifact = ?",
                (blob(to), blob(artifact)),
            )

    def verified(self) -> dict[str, Verified]:
        """By the artifact's name."""
        return {
            name_of(row["artifact"]): Verified(
                datetime.fromisoformat(row["at"]),
                outcome_of(row["outcome"]),
                row["damaged"],
                frozenset(json.loads(row["stacks"])),
            )
            for row in self._rows("SELECT * FROM verified")
        }

    def set_note(self, key: str, value: str) -> None:
        with self._writing() as connection:
            connection.execute("INSERT OR REPLACE INTO note (key, value) VALUES (?, ?)", (key, value))

    def note(self, key: str) -> str | None:
        rows = self._rows("SELECT value FROM note WHERE key = ?", (key,))
        return str(rows[0]["value"]) if rows else None


def open_in(state_dir: Path, now: datetime) -> Store:
    """The store of a state directory that is there; raises StackwardError as `Store.open`."""
    return Store.open(state_dir / FILE, now=now, locks=locks_in(state_dir))


def locks_in(state_dir: Path) -> Locks:
    return Locks(state_dir / "locks")
