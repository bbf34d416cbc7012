"""When a job is due, from a cron expression in local time.

As Debian's cron does: in the hour that spring leaves out, a job runs right after the gap; in the hour that autumn
repeats, it runs once. `*` in minutes or hours means every one that passes.
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from stackward.core.week import OFF, ON

if TYPE_CHECKING:
    from collections.abc import Iterator

# How far back `latest_due` looks, step by step, so that neither a frequent nor a rare job makes it count for long.
_WINDOWS = (timedelta(hours=1), timedelta(days=1), timedelta(days=32), timedelta(days=367))

# Runs that `interval_seconds` compares: enough to meet a weekend and a short month.
_LOOKED_AHEAD = 15

_SOME_DAY = datetime(2026, 1, 1, tzinfo=UTC)


class CronError(ValueError):
    """An expression that is no cron expression, or that no time ever meets."""


def next_run(expression: str, after: datetime, zone: ZoneInfo) -> datetime:
    """The first time after `after` that `expression` names, in `zone`. Raises CronError."""
    for run in runs(expression, after, zone):
        return run
    raise CronError(f"{expression!r} names no time that ever comes")


def interval_seconds(expression: str, now: datetime) -> float:
    """The longest pause between two runs that `expression` names in the near future. Raises CronError."""
    times = [run.astimezone(UTC) for run in islice(runs(expression, now, ZoneInfo("UTC")), _LOOKED_AHEAD)]
    if len(times) < 2:
        raise CronError(f"{expression!r} names no time that ever comes")
    return max((after - before).total_seconds() for before, after in pairwise(times))


def latest_due(expression: str, after: datetime, now: datetime, zone: ZoneInfo) -> datetime | None:
    """The last time in (after, now] that `expression` names; None where none is. Raises CronError.

    `after` is when the job last ran: however many times were missed since, this is the one that is made up for.
    """
    first, second = _first_two(expression, after, zone)
    until = now.astimezone(UTC)
    if first.astimezone(UTC) > until:
        return None
    if second is None or second.astimezone(UTC) > until:
        return first
    for window in _WINDOWS:
        start = max(after.astimezone(UTC), until - window)
        latest = _last_until(expression, start, now, zone)
        if latest is not None:
            return latest
    return _last_until(expression, after, now, zone)


def parse_schedule(text: str) -> str:
    """A setting's value: a cron expression, `on` (at the usual time) or `off`. Raises ValueError."""
    words = text.split()
    if len(words) == 1 and words[0].lower() in (ON, OFF):
        return words[0].lower()
    expression = " ".join(words)
    try:
        next_run(expression, _SOME_DAY, ZoneInfo("UTC"))
    except CronError as error:
        why = str(error).rpartition(": ")[2]
        raise ValueError(f"must be a cron expression such as `30 2 * * *`, or `on` or `off` ({why})") from error
    return expression


def _first_two(expression: str, after: datetime, zone: ZoneInfo) -> tuple[datetime, datetime | None]:
    found = runs(expression, after, zone)
    for first in found:
        return first, next(found, None)
    raise CronError(f"{expression!r} names no time that ever comes")


def _last_until(expression: str, start: datetime, now: datetime, zone: ZoneInfo) -> datetime | None:
    until = now.astimezone(UTC)
    due = takewhile(lambda run: run.astimezone(UTC) <= until, runs(expression, start, zone))
    return next(iter(deque(due, maxlen=1)), None)


def runs(expression: str, after: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """All times that `expression` names, strictly later than `after` and than each other.

    As instants, that is: cronsim alone can step back in a repeated hour.
    """
    if len(expression.split()) != 5:
        raise CronError(f"{expression!r} is no cron expression: it must have five fields")
    last = after.astimezone(UTC)
    try:
        for run in CronSim(expression, after.astimezone(zone)):
            instant = run.astimezone(UTC)
            if instant > last:
                yield instant.astimezone(zone)
                last = instant
    except CronSimError as error:
        raise CronError(f"{expression!r} is no cron expression: {error}") from error
