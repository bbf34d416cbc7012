"""What drills proved, and when: the newest of each stack, and its last one that was good."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from stackward.core.model import Outcome
from stackward.store.database import Database, blob, name_of, stamp


@dataclass(frozen=True, slots=True)
class Drill:
    """The newest drill of a stack, from the backup `artifact`. `proofs` are what was seen, `reasons` what was wrong.

    `success_at` and `success_artifact` are those of the last one that was good, which may be an earlier one.
    """

    stack: str
    at: datetime
    outcome: Outcome
    artifact: str
    proofs: tuple[str, ...]
    reasons: tuple[str, ...]
    success_at: datetime | None
    success_artifact: str


class Drills(Database):
    """One row per stack."""

    def record_drill(
        self,
        stack: str,
        at: datetime,
        outcome: Outcome,
        artifact: str,
        proofs: Sequence[str] = (),
        reasons: Sequence[str] = (),
    ) -> None:
        """A drill has ended. One that is not good takes nothing from what an earlier one proved."""
        good = outcome in (Outcome.OK, Outcome.WARN)
        success = (stamp(at), blob(artifact)) if good else (None, None)
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO drill VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET at = excluded.at,"
                " outcome = excluded.outcome, artifact = excluded.artifact, proofs = excluded.proofs,"
                " reasons = excluded.reasons, success_at = coalesce(excluded.success_at, success_at),"
                " success_artifact = coalesce(excluded.success_artifact, success_artifact)",
                (
                    blob(stack),
                    stamp(at),
                    outcome.value,
                    blob(artifact),
                    json.dumps(list(proofs)),
                    json.dumps(list(reasons)),
                    *success,
                ),
            )

    def drills(self) -> dict[str, Drill]:
        """By the stack's name."""
        found = (
            Drill(
                stack=name_of(row["stack"]),
                at=datetime.fromisoformat(row["at"]),
                outcome=Outcome(row["outcome"]),
                artifact=name_of(row["artifact"]),
                proofs=tuple(json.loads(row["proofs"])),
                reasons=tuple(json.loads(row["reasons"])),
                success_at=datetime.fromisoformat(row["success_at"]) if row["success_at"] else None,
                success_artifact=name_of(row["success_artifact"]) if row["success_artifact"] else "",
            )
            for row in self._rows("SELECT * FROM drill")
        )
        return {drill.stack: drill for drill in found}
