"""The daemon's loop: a sign of life, who has ended, what is due; and at last the farewell.

Whatever may take long is a process of its own (`stackward run NAME --scheduled`); what runs every few minutes is a thread
in here. The daemon's own loop waits for nothing but its clock. It takes back what killed runs left, at any time, and when
it is told to end it ends all runs first, also those that were started with `docker exec`, which get no signal of their own.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from stackward.core.errors import ExitCode, StackwardError
from stackward.daemon.scheduler import Scheduler
from stackward.daemon.workers import Crew, Running, Thread
from stackward.steps.report import heartbeat
from stackward.store import RUN_ID
from stackward.tools.docker import Docker, DockerError
from stackward.week import chains, timetable
from stackward.wiring import build

if TYPE_CHECKING:
    from stackward.wiring import Appliance

_LOG = logging.getLogger("stackward.daemon")

TICK_SECONDS = 5.0
BEAT_SECONDS = 15.0
REPAIR_SECONDS = 15.0
# Within the 50 s that supervisord grants: first runs are asked to end, at last killed; then what they left is taken back.
FAREWELL_SECONDS = 35.0
_WITHOUT_DOCKER_SECONDS = 10.0
_KILLED_SECONDS = 2.0
_THREADS_SECONDS = 2.0  # who looks at containers has nothing to put back
_HISTORY = timedelta(days=400)
_FREQUENT_HISTORY = timedelta(days=7)
_DAY = timedelta(days=1)
_REPAIR = "taking back what a run left"


class Daemon:
    """One tick after the other until `ending` is set."""

    def __init__(self, appliance: Appliance, ending: threading.Event) -> None:
        self._appliance = appliance
        self._ending = ending
        self._crew = Crew()
        self._scheduler = Scheduler(appliance, self._crew)
        self._tidied: datetime | None = None
        self._beaten = 0.0
        self._next_repair = 0.0
        self._said: list[str] = []

    def run(self) -> None:
        """Returns when every run has ended and what they left is taken back."""
        timetable.begin(self._appliance.store, self._appliance.now())
        while not self._ending.is_set():
            self._beat()
            try:
                self._tick(self._appliance.now())
            except StackwardError as error:
                _LOG.error("%s", error)
                self._open_anew()
            self._ending.wait(TICK_SECONDS)
        self._farewell()

    def _beat(self) -> None:
        if time.monotonic() - self._beaten >= BEAT_SECONDS:
            heartbeat.touch(self._appliance.settings)
            self._beaten = time.monotonic()

    def _tick(self, now: datetime) -> None:
        for running, code in self._crew.reap():
            self._scheduler.ended(running, code)
        if time.monotonic() >= self._next_repair:
            self._take_back(now)
            self._next_repair = time.monotonic() + REPAIR_SECONDS
        if self._appliance.store.is_replaced():
            self._open_anew()
        self._tidy(now)
        if self._appliance.settings.schedule:
            self._scheduler.tick(self._appliance, now)

    def _take_back(self, now: datetime) -> None:
        """In a thread: what was moved may lie on a disk that does not answer, and Docker may not either."""
        if self._crew.is_free(_REPAIR):
            appliance = self._appliance
            self._crew.add(_REPAIR, Running(_REPAIR, Thread(_REPAIR, lambda: self._recover(appliance)), now))

    def _recover(self, appliance: Appliance) -> int:
        try:
            messages = appliance.recover()
        except StackwardError as error:
            messages = [str(error)]
        for message in messages:
            if message not in self._said:
                _LOG.warning("%s", message)
        self._said = messages
        return ExitCode.OK

    def _open_anew(self) -> None:
        """Another history is in the place of ours, or ours cannot be used: who opens it sees whether it is whole."""
        try:
            self._appliance = build(self._appliance.settings)
        except StackwardError as error:
            _LOG.error("%s", error)

    def _tidy(self, now: datetime) -> None:
        if self._tidied is not None and timedelta(0) <= now - self._tidied < _DAY:
            return
        store = self._appliance.store
        store.forget_runs_before(now - _HISTORY)
        store.forget_runs_before(now - _FREQUENT_HISTORY, sorted(chains.FREQUENT))
        self._tidied = now

    def _farewell(self) -> None:
        """End every run: ask, wait, kill; then take back what they left.

        Where Docker is ending, too, a run could wait for it for ever: then it is killed soon. What it has stopped is
        started again by whoever begins next.
        """
        docker = Thread("asking Docker", self._ask_docker)
        begun = time.monotonic()
        asked: set[int] = set()
        while runs := self._runs():
            patience = FAREWELL_SECONDS if docker.poll() == ExitCode.OK else _WITHOUT_DOCKER_SECONDS
            is_late = time.monotonic() - begun > patience
            for pid in runs if is_late else runs - asked:
                number = signal.SIGKILL if is_late else signal.SIGTERM
                _LOG.info("ending the run of process %d with %s", pid, number.name)
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            asked |= runs
            if time.monotonic() - begun > patience + _KILLED_SECONDS:
                break
            time.sleep(0.2)
        self._crew.join_threads(_THREADS_SECONDS)
        docker.join(max(0.0, begun + _WITHOUT_DOCKER_SECONDS - time.monotonic()))
        if docker.poll() is None:
            _LOG.warning("Docker does not answer: what runs have left is taken back at the next start")
            return
        for message in self._appliance.recover():
            _LOG.warning("%s", message)

    def _ask_docker(self) -> int:
        """Waits for as long as Docker, being about to end or to begin, keeps us waiting; away is an answer."""
        with suppress(DockerError):
            Docker(self._appliance.settings.docker_host).ping()
        return ExitCode.OK

    def _runs(self) -> set[int]:
        """The processes that run something now: ours, and whoever holds the lock of a run."""
        pids = {
            holder.pid
            for resource, holders in self._appliance.locks.held().items()
            if RUN_ID.fullmatch(resource)
            for holder in holders
        }
        return (pids | self._crew.pids()) - {os.getpid()}
