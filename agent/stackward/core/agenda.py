"""What of the week is due now. Pure: it is told the time, and when each row last began.

It may be asked every few seconds: until a row's next time has come, nothing is computed for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from stackward.core.schedule import latest_due, next_run, runs
from stackward.core.week import Planned

_NO_DELAY = timedelta(0)
_LONG = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Due:
    """`at` is the latest time that was missed: however many were, the row is due once."""

    at: datetime
    planned: Planned


@dataclass(slots=True)
class _Clock:
    """Where a row stands: its `latest` time that has come (None: it has begun since), and the `upcoming` one."""

    latest: datetime | None
    upcoming: datetime
    later: Iterator[datetime]

    def advance(self, now: datetime) -> None:
        while self.upcoming.astimezone(UTC) <= now:
            self.latest, self.upcoming = self.upcoming, next(self.later)


class Agenda:
    """`delays`: how much later than their time rows begin, by name."""

    def __init__(self, rows: Sequence[Planned], zone: ZoneInfo, delays: Mapping[str, timedelta] | None = None) -> None:
        self._rows = [planned for planned in rows if planned.schedule]
        self._zone = zone
        self._delays = delays or {}
        self._clocks: dict[str, _Clock] = {}
        self._asked = datetime.min.replace(tzinfo=UTC)

    def due(self, now: datetime, last: Callable[[str], datetime]) -> list[Due]:
        """The rows whose time came after they `last` began, earliest first. A row is due until it has begun."""
        now = now.astimezone(UTC)
        if not timedelta(0) <= now - self._asked < _LONG:
            self._clocks.clear()  # the clock was set, or we slept: what was computed before does not count
        self._asked = now
        found = []
        for planned in self._rows:
            delay = self._delay(planned)
            clock = self._clocks.get(planned.name)
            if clock is None:
                began = last(planned.name).astimezone(UTC)
                clock = self._clocks[planned.name] = self._wound_up(planned, now - delay, began - delay)
            clock.advance(now - delay)
            if clock.latest is None:
                continue
            if last(planned.name).astimezone(UTC) - delay < clock.latest.astimezone(UTC):
                found.append(Due(self._shifted(clock.latest, delay), planned))
            else:
                clock.latest = None
        return sorted(found, key=lambda one: one.at)

    def next(self, planned: Planned, now: datetime) -> datetime | None:
        """When the row begins next; None where it is off."""
        if not planned.schedule:
            return None
        delay = self._delay(planned)
        return self._shifted(next_run(planned.schedule, now.astimezone(UTC) - delay, self._zone), delay)

    def _delay(self, planned: Planned) -> timedelta:
        return self._delays.get(planned.name, _NO_DELAY)

    def _wound_up(self, planned: Planned, now: datetime, began: datetime) -> _Clock:
        later = runs(planned.schedule, now, self._zone)
        latest = latest_due(planned.schedule, min(began, now), now, self._zone)
        return _Clock(latest, next(later), later)

    def _shifted(self, at: datetime, delay: timedelta) -> datetime:
        """In UTC: local time plus a delay is another instant when the clock changes in between."""
        return (at.astimezone(UTC) + delay).astimezone(self._zone)
