"""`python -m stackward.daemon`: the supervised program that lets runs happen when they are due.

Each run is a process of its own (`stackward run CHAIN --scheduled`), so that one that crashes takes nothing with it. The
daemon takes back what killed runs left, at any time, and when it is told to end it ends all runs first, also those
that were started with `docker exec`, which get no signal of their own.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from stackward import chains, config
from stackward.core.errors import ExitCode, SettingsError, StackwardError
from stackward.lookout import Lookout
from stackward.steps import heartbeat
from stackward.store import RUN_ID
from stackward.tools import logs
from stackward.tools.process import Background
from stackward.wiring import build

if TYPE_CHECKING:
    from stackward.wiring import Appliance

_LOG = logging.getLogger("stackward.daemon")

TICK_SECONDS = 15.0
# Within the 50 s that supervisord grants: first runs are asked to end, at last killed; then what they left is taken back.
FAREWELL_SECONDS = 35.0
_LOOKOUT_SECONDS = 2.0  # it has nothing to put back
_FIRST_START = "first-start"
_HISTORY = timedelta(days=400)
_RETRY_PAUSE = timedelta(minutes=10)  # a retry that does not even get to be recorded is not begun every 15 seconds


class Daemon:
    """One tick after the other until `ending` is set."""

    def __init__(self, appliance: Appliance, ending: threading.Event) -> None:
        self._appliance = appliance
        self._ending = ending
        self._child: Background | None = None
        self._child_name = ""
        self._begun: dict[str, datetime] = {}  # what was started, and for which time it was due
        self._said: list[str] = []

    def run(self) -> None:
        """Returns when every run has ended and what they left is taken back."""
        now = self._appliance.now()
        if self._appliance.store.note(_FIRST_START) is None:
            self._appliance.store.set_note(_FIRST_START, now.isoformat())
        self._appliance.store.forget_runs_before(now - _HISTORY)
        while not self._ending.is_set():
            self._beat()
            self._tick()
            self._beat()
            self._ending.wait(TICK_SECONDS)
        self._farewell()

    def _beat(self) -> None:
        heartbeat.touch(self._appliance.settings)

    def _tick(self) -> None:
        try:
            self._reap()
            self._take_back()
            if self._child is None and self._appliance.settings.schedule:
                self._start_what_is_due()
        except StackwardError as error:
            self._say([str(error)])

    def _reap(self) -> None:
        code = self._child.poll() if self._child else None
        if code is None:
            return
        level = logging.INFO if code == ExitCode.OK else logging.ERROR
        _LOG.log(level, "%s ended with exit code %d", self._child_name, code)
        self._child = None

    def _take_back(self) -> None:
        self._say(self._appliance.recover())

    def _say(self, messages: list[str]) -> None:
        """Warn of what was not already said at the last tick."""
        for message in messages:
            if message not in self._said:
                _LOG.warning("%s", message)
        self._said = messages

    def _start_what_is_due(self) -> None:
        now = self._appliance.now()
        since = datetime.fromisoformat(self._appliance.store.note(_FIRST_START) or now.isoformat())
        for at, chain in chains.due(self._appliance.store, since, now, self._appliance.settings.zone):
            if self._begun.get(chain.name) != at:
                self._start(chain.name, at)
                return
        last_retry = self._begun.get(chains.RETRY)
        if (last_retry is None or now - last_retry > _RETRY_PAUSE) and chains.due_retries(self._appliance.store, now):
            self._start(chains.RETRY, now)

    def _start(self, name: str, at: datetime) -> None:
        _LOG.info("%s begins, due at %s", name, at.isoformat())
        self._begun[name] = at
        self._child = Background([sys.executable, "-m", "stackward.cli.main", "run", name, "--scheduled"])
        self._child_name = name

    def _farewell(self) -> None:
        """End every run: ask, wait, kill; then take back what they left."""
        deadline = time.monotonic() + FAREWELL_SECONDS
        asked: set[int] = set()
        while runs := self._runs():
            number = signal.SIGKILL if time.monotonic() > deadline else signal.SIGTERM
            for pid in runs if number == signal.SIGKILL else runs - asked:
                _LOG.info("ending the run of process %d with %s", pid, number.name)
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            asked |= runs
            if time.monotonic() > deadline + 2:
                break
            time.sleep(0.2)
        for message in self._appliance.recover():
            _LOG.warning("%s", message)

    def _runs(self) -> set[int]:
        """The processes that run something now: ours, and whoever holds the lock of a run."""
        pids = {
            holder.pid
            for resource, holders in self._appliance.locks.held().items()
            if RUN_ID.fullmatch(resource)
            for holder in holders
        }
        if self._child is not None and self._child.poll() is None:
            pids.add(self._child.pid)
        return pids - {os.getpid()}


def main() -> int:
    logs.configure()
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    try:
        appliance = build(config.from_process())
    except SettingsError as error:
        _LOG.error("%s", error)
        return ExitCode.USAGE
    _LOG.info("the daemon begins")
    lookout = Lookout(appliance.settings, ending)
    lookout.start()
    try:
        Daemon(appliance, ending).run()
    finally:
        appliance.close()
    lookout.join(_LOOKOUT_SECONDS)
    _LOG.info("the daemon ends")
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
