"""Begins what is due: by the week, by request, and what failed once more. Asked at every tick, it waits for nothing."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from stackward.core.errors import ExitCode
from stackward.daemon.frequent import Frequent
from stackward.daemon.workers import Crew, Process, Running, Thread, Worker
from stackward.observe import messages
from stackward.runner import CHANGE
from stackward.week import chains, retrying, timetable

if TYPE_CHECKING:
    from stackward.core.agenda import Due
    from stackward.wiring import Appliance

_LOG = logging.getLogger("stackward.daemon")

OVERDUE = "overdue"  # the scope of these alerts
_EVERY = timedelta(minutes=1)
# What did not even come to be recorded as begun is not begun again at once.
_PAUSE = timedelta(minutes=10)


class Scheduler:
    """`crew` has who is at work; whoever has ended must be reaped before the next `tick`."""

    def __init__(self, appliance: Appliance, crew: Crew) -> None:
        self._crew = crew
        self._agenda = timetable.agenda(appliance)
        self._frequent = Frequent(appliance.settings)
        self._tried: dict[str, tuple[datetime | None, datetime]] = {}  # name -> due at, begun at
        self._waiting: dict[str, datetime] = {}  # what is due and has not begun -> since when we know
        self._looked: datetime | None = None

    def tick(self, appliance: Appliance, now: datetime) -> None:
        """Begin what is due, unless there is a pause; raises StackwardError where the history cannot be read."""
        due = self._agenda.due(now, timetable.last_begun(appliance.store, now))
        is_minute = self._looked is None or not timedelta(0) <= now - self._looked < _EVERY
        if appliance.store.paused_until(now) is None:
            self._begin_all(appliance, self._wanted(appliance, due, now, retries=is_minute), now)
        else:
            due = []
        self._waiting = {one.planned.name: self._waiting.get(one.planned.name, now) for one in due}
        if is_minute:
            self._looked = now
            self._tell_overdue(appliance, now)

    def ended(self, running: Running, code: int) -> None:
        """One of ours is done; how it went is in the history."""
        if isinstance(running.worker, Process):
            level = logging.INFO if code == ExitCode.OK else logging.ERROR
            _LOG.log(level, "%s ended with exit code %d", running.name, code, extra={"job": running.name})

    def _wanted(
        self, appliance: Appliance, due: list[Due], now: datetime, *, retries: bool
    ) -> list[tuple[str, datetime | None, str]]:
        found: list[tuple[str, datetime | None, str]] = [(one.planned.name, one.at, chains.SCHEDULED) for one in due]
        asked = appliance.store.requests()
        found += [(name, asked[name], CHANGE) for name in sorted(asked)]
        if retries and retrying.due(appliance.store, now):
            found.append((chains.RETRY, None, chains.RETRY))
        return found

    def _begin_all(self, appliance: Appliance, wanted: list[tuple[str, datetime | None, str]], now: datetime) -> None:
        """One process a tick at the most: a host that comes back does not begin its whole week at once."""
        begun = False
        for name, at, trigger in wanted:
            is_process = name not in chains.FREQUENT
            if not (begun and is_process) and self._may_begin(name, at, now):
                self._begin(appliance, name, at, trigger, now)
                begun = begun or is_process

    def _may_begin(self, name: str, at: datetime | None, now: datetime) -> bool:
        if name in self._tried:
            tried_at, begun = self._tried[name]
            if tried_at == at and timedelta(0) <= now - begun < _PAUSE:
                return False
        return self._crew.is_free(chains.lane_of(name))

    def _begin(self, appliance: Appliance, name: str, at: datetime | None, trigger: str, now: datetime) -> None:
        self._tried[name] = (at, now)
        if trigger == CHANGE:
            appliance.store.fulfil(name, now)
        if name in chains.FREQUENT:
            worker: Worker = Thread(name, lambda: self._frequent.run(appliance, name, trigger))
        else:
            told = f", due at {at:%F %T}" if at is not None else ""
            _LOG.info("%s begins%s", name, told, extra={"job": name, "trigger": trigger})
            worker = Process(name, trigger)
        self._crew.add(chains.lane_of(name), Running(name, worker, now))

    def _tell_overdue(self, appliance: Appliance, now: datetime) -> None:
        late = timetable.overdue(appliance, self._crew.begun(), self._waiting, now)
        if not late and not appliance.store.alerts(OVERDUE):
            return
        changes = appliance.store.change_alerts(
            OVERDUE, late, at=now, compose=lambda changes: messages.standing(changes, now)
        )
        for name, text in changes.raised.items():
            _LOG.warning("%s", text, extra={"job": name})
