"""What a drill counted in databases, and whether it proves anything: against nothing, and against the last proof. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from stackward.core.model import display

_FEW_TABLES = 2  # fewer than one in so many of the last proof's: something is missing
_FEW_ROWS = 10


@dataclass(frozen=True, slots=True)
class Count:
    """Rows and tables of one database, less those that an extension brought along."""

    service: str
    database: str
    rows: int
    tables: int

    @property
    def figures(self) -> str:
        return f"{self.rows} rows in {self.tables} tables"

    def __str__(self) -> str:
        return f"database {display(self.database)}: {self.figures}"


@dataclass(frozen=True, slots=True)
class Counted:
    """What one drill counted, in data that stood still `at`."""

    at: datetime
    counts: tuple[Count, ...] = ()

    def document(self) -> dict[str, Any]:
        counts = [[one.service, one.database, one.rows, one.tables] for one in self.counts]
        return {"at": self.at.isoformat(), "counts": counts}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Counted:
        return cls(datetime.fromisoformat(document["at"]), tuple(Count(*one) for one in document["counts"]))


@dataclass(frozen=True, slots=True)
class Verdict:
    """`wrong` is why it is no proof, `warnings` what somebody should look at."""

    wrong: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def judge(stack: str, now: Counted, before: Counted | None) -> Verdict:
    """Whether it is a proof. `before` is the last one; of data that is younger than this, it says nothing."""
    wrong = []
    for service in dict.fromkeys(one.service for one in now.counts):
        found = [one for one in now.counts if one.service == service]
        if not any(one.rows for one in found):
            tables = sum(one.tables for one in found)
            hint = "if that is right, the label stackward.probe can say what shows that it works"
            wrong.append(f"{display(service)}: 0 rows in {tables} tables in all its databases prove nothing ({hint})")
    warnings = []
    if before is not None and before.at <= now.at:
        for old in before.counts:
            found = [one for one in now.counts if one.service == old.service]
            new = next((one for one in found if one.database == old.database), None)
            if not found or not old.rows:
                continue  # another service, or it is proven otherwise now
            lost, less = _fallen(old, new)
            wrong += [f"{display(old.service)}: {lost} (if this is right: stackward accept {display(stack)})"] * bool(
                lost
            )
            warnings += [f"{display(old.service)}: {less}"] * bool(less)
    return Verdict(tuple(wrong), tuple(warnings))


def _fallen(old: Count, new: Count | None) -> tuple[str, str]:
    """What is lost for sure, and what may be."""
    if new is None:
        return f"there is no database {display(old.database)}; the last proof had {old.figures} in it", ""
    said = f"{new}, where the last proof had {old.figures}"
    if not new.rows or new.tables * _FEW_TABLES < old.tables:
        return said, ""
    return "", said if new.rows * _FEW_ROWS < old.rows else ""
