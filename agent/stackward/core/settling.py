"""When something that keeps changing has come to rest. Pure; times are seconds of a clock that never goes back."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Settling:
    """`rest_seconds` without a change is rest; after `most_seconds` of changes (0: however long) it is time anyway."""

    rest_seconds: float
    most_seconds: float = 0.0
    _first: float | None = None
    _latest: float = 0.0

    def touch(self, now: float) -> None:
        if self._first is None:
            self._first = now
        self._latest = now

    def is_due(self, now: float) -> bool:
        """True once after each time that it changed and came to rest."""
        if self._first is None:
            return False
        rested = now - self._latest >= self.rest_seconds
        overdue = self.most_seconds > 0 and now - self._first >= self.most_seconds
        if rested or overdue:
            self._first = None
            return True
        return False

    def due_in(self, now: float) -> float:
        """Seconds until it may be due, if nothing changes meanwhile; infinite where nothing has changed."""
        if self._first is None:
            return math.inf
        rest = self._latest + self.rest_seconds - now
        most = self._first + self.most_seconds - now if self.most_seconds > 0 else rest
        return max(0.0, min(rest, most))
