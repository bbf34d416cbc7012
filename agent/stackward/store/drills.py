"""What drills proved, and when: the newest of each stack, and its last one that was good."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from stackward.core.counts import Counted
from stackward.core.model import Outcome
from stackward.store.database import Database, blob, name_of, stamp
from stackward.store.rows import outcome_of


@dataclass(frozen=True, slots=True)
class Drill:
    """The newest drill of a stack, from the backup `artifact`. `proofs` are what was seen, `reasons` what was wrong.

    `success_at` and `success_artifact` are those of the last one that was good, which may be an earlier one; `counted` is
    what the next one has to hold out against, since `counted_at`, which may be earlier again.
    """

    stack: str
    at: datetime
    outcome: Outcome
    artifact: str
    proofs: tuple[str, ...]
    reasons: tuple[str, ...]
    success_at: datetime | None
    success_artifact: str
    counted: Counted | None = None
    counted_at: datetime | None = None


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
        counted: Counted | None = None,
    ) -> None:
        """A drill has ended. One that is not good takes nothing from what an earlier one proved.

        `counted` takes the place of what was known; None leaves that.
        """
        good = outcome in (Outcome.OK, Outcome.WARN)
        success = (stamp(at), blob(artifact)) if good else (None, None)
        figures = (json.dumps(counted.document()), stamp(at)) if good and counted is not None else (None, None)
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO drill (stack, at, outcome, artifact, proofs, reasons, success_at, success_artifact, counted,"
                " counted_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET at = excluded.at,"
                " outcome = excluded.outcome, artifact = excluded.artifact, proofs = excluded.proofs,"
                " reasons = excluded.reasons, success_at = coalesce(excluded.success_at, success_at),"
                " success_artifact = coalesce(excluded.success_artifact, success_artifact),"
                " counted = coalesce(excluded.counted, counted), counted_at = coalesce(excluded.counted_at, counted_at)",
                (
                    blob(stack),
                    stamp(at),
                    outcome.value,
                    blob(artifact),
                    json.dumps(list(proofs)),
                    json.dumps(list(reasons)),
                    *success,
                    *figures,
                ),
            )

    def drills(self) -> dict[str, Drill]:
        """By the stack's name."""
        found = (
            Drill(
                stack=name_of(row["stack"]),
                at=datetime.fromisoformat(row["at"]),
                outcome=outcome_of(row["outcome"]),
                artifact=name_of(row["artifact"]),
                proofs=tuple(json.loads(row["proofs"])),
                reasons=tuple(json.loads(row["reasons"])),
                success_at=datetime.fromisoformat(row["success_at"]) if row["success_at"] else None,
                success_artifact=name_of(row["success_artifact"]) if row["success_artifact"] else "",
                counted=Counted.of(json.loads(row["counted"])) if row["counted"] else None,
                counted_at=datetime.fromisoformat(row["counted_at"]) if row["counted_at"] else None,
            )
            for row in self._rows("SELECT * FROM drill")
        )
        return {drill.stack: drill for drill in found}
