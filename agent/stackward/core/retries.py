"""When something that failed at its scheduled time is tried again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# After the scheduled failure, not after the last one: with the next night in sight, four hours are what is left.
DELAYS = (timedelta(hours=1), timedelta(hours=4))


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt. `trigger` is "schedule", "retry", or what a person used: those count as no attempt of ours."""

    trigger: str
    ended_at: datetime


def next_retry(failures: Sequence[Failure]) -> datetime | None:
    """When to try again, given the failures since the last success, newest first; None: not before the next night."""
    retries = 0
    for failure in failures:
        if failure.trigger == "schedule":
            return failure.ended_at + DELAYS[retries] if retries < len(DELAYS) else None
        retries += failure.trigger == "retry"
    return None
