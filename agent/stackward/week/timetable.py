"""The week as this host follows it: the table, settings, and the history of runs, put together."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from stackward.core import week
from stackward.core.agenda import Agenda
from stackward.core.schedule import interval_seconds
from stackward.observe.messages import when

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta

    from stackward.config import Settings
    from stackward.core.week import Planned
    from stackward.store import Store
    from stackward.wiring import Appliance

_FIRST_START = "first-start"
_DAY_SECONDS = 86400.0  # as often runs what is in no row


def planned(settings: Settings) -> tuple[Planned, ...]:
    """Every row of the week, those that are off included."""
    return week.plan(settings.schedules, on=settings.schedule)


def agenda(appliance: Appliance) -> Agenda:
    settings = appliance.settings
    rows = planned(settings)
    delays = {}
    if settings.jitter:
        now, host = appliance.now(), appliance.host_name
        delays = {
            row.name: week.fixed_delay(settings.jitter, interval_seconds(row.schedule, now), f"{host}/{row.name}")
            for row in rows
            if row.schedule
        }
    return Agenda(rows, settings.zone, delays)


def begin(store: Store, now: datetime) -> None:
    """The first start of all is noted: what a new host missed before it came is not made up for."""
    if store.note(_FIRST_START) is None:
        store.set_note(_FIRST_START, now.isoformat())


def last_begun(store: Store, now: datetime) -> Callable[[str], datetime]:
    """When a job or chain last began; for one that never did, when we first started here."""
    since = datetime.fromisoformat(store.note(_FIRST_START) or now.isoformat())

    def last(name: str) -> datetime:
        begun = store.last_begun(name, now)
        return max(begun, since) if begun else since

    return last


def patience(store: Store, row: Planned | None, name: str, now: datetime) -> timedelta:
    """How long after its time a run may go on before somebody should look at it."""
    seconds = interval_seconds(row.schedule, now) if row is not None and row.schedule else _DAY_SECONDS
    return week.patience(seconds, store.durations(name))


def overdue(
    appliance: Appliance, at_work: Mapping[str, datetime], waiting: Mapping[str, datetime], now: datetime
) -> dict[str, str]:
    """What is at work, or could not begin, for longer than it should, both name → since when: name → a sentence."""
    rows = {row.name: row for row in planned(appliance.settings)}
    told = (
        (at_work, "is at work since {}, longer than it should be. Does a disk or a server not answer?"),
        ({name: since for name, since in waiting.items() if name not in at_work}, "is due since {} and has not begun."),
    )
    return {
        name: f"{name} {text.format(when(since, now))} Next: `docker logs stackward`"
        for found, text in told
        for name, since in found.items()
        if now - since > patience(appliance.store, rows.get(name), name, now)
    }
