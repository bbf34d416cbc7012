"""What a drill counted in databases, and whether it proves anything: against nothing, and against the last proof. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from stackward.core.model import display

# Held against the last proof, a database has lost something where less than this of it is left; or may have.
_LOST_ROWS, _LOST_TABLES = 0.01, 0.5
_FEW_ROWS, _FEW_TABLES = 0.1, 0.75


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
        return cls(datetime.fromisoformat(document["at"]), tuple(Count(*one[:4]) for one in document["counts"]))


@dataclass(frozen=True, slots=True)
class Verdict:
    """`wrong` is why it is no proof, `warnings` what somebody should look at.

    `measure` is what the next drill is to be held against: where there is a warning, still what there was before.
    """

    wrong: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    measure: tuple[Count, ...] = ()


def judge(stack: str, now: Counted, before: Counted | None) -> Verdict:
    """Whether it is a proof. `before` is the last one; of data that is younger than this, it says nothing."""
    wrong = [*_without_rows(now)]
    warnings = []
    measure = {(one.service, one.database): one for one in now.counts}
    meant = f"if this is right: stackward accept {display(stack)}"
    for old in before.counts if before is not None and before.at <= now.at else ():
        is_counted = any(one.service == old.service for one in now.counts)
        if not is_counted or not old.rows:
            continue  # another service, or it is proven otherwise now
        new = measure.get((old.service, old.database))
        if new is None:
            gone = f"there is no database {display(old.database)}; the last proof had {old.figures} in it"
            wrong.append(f"{display(old.service)}: {gone} ({meant})")
            continue
        told = f"{display(old.service)}: {new}, where the last proof had {old.figures} ({meant})"
        if not new.rows or _is_below(new, old, _LOST_ROWS, _LOST_TABLES):
            wrong.append(told)
        elif _is_below(new, old, _FEW_ROWS, _FEW_TABLES):
            warnings.append(told)
            measure[old.service, old.database] = old
    return Verdict(tuple(wrong), tuple(warnings), tuple(measure.values()))


def _without_rows(now: Counted) -> Iterator[str]:
    for service in dict.fromkeys(one.service for one in now.counts):
        found = [one for one in now.counts if one.service == service]
        if not any(one.rows for one in found):
            tables = sum(one.tables for one in found)
            hint = "if that is right, the label stackward.probe can say what shows that it works"
            yield f"{display(service)}: 0 rows in {tables} tables in all its databases prove nothing ({hint})"


def _is_below(new: Count, old: Count, rows: float, tables: float) -> bool:
    return new.rows < old.rows * rows or new.tables < old.tables * tables
