"""What the daemon has at work: processes, each a run of its own, and threads for what runs often and costs little.

The daemon never waits for any of them: one that hangs on a dead disk is left to hang, and somebody is told.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from stackward.core.errors import ExitCode
from stackward.tools.process import Background

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

_LOG = logging.getLogger("stackward.daemon")


class Worker(Protocol):
    def poll(self) -> int | None:
        """Its exit code; None while it is at work."""


class Process:
    """`stackward run …` in a process of its own, so that one that crashes takes nothing with it."""

    def __init__(self, name: str, trigger: str) -> None:
        argv = [sys.executable, "-m", "stackward.cli.main", "run", name, "--scheduled", trigger]
        self._child = Background(argv)
        self.pid = self._child.pid

    def poll(self) -> int | None:
        return self._child.poll()


class Thread:
    """Work within the daemon: no interpreter to start, nothing to import, and what is known of the stacks is at hand."""

    def __init__(self, name: str, work: Callable[[], int]) -> None:
        self._code: int = ExitCode.FAILED
        self._work = work
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def poll(self) -> int | None:
        return None if self._thread.is_alive() else self._code

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            self._code = self._work()
        except Exception:  # noqa: BLE001 - what a thread raises would vanish with it; jobs' own mistakes are caught before
            _LOG.exception("%s met what nobody expected", self._thread.name)


@dataclass(frozen=True, slots=True)
class Running:
    name: str
    worker: Worker
    begun: datetime


class Crew:
    """Who is at work, by lane. A lane holds one worker at a time: those that would wait for each other share one."""

    def __init__(self) -> None:
        self._lanes: dict[str, Running] = {}

    def is_free(self, lane: str) -> bool:
        return lane not in self._lanes

    def add(self, lane: str, running: Running) -> None:
        self._lanes[lane] = running

    def reap(self) -> list[tuple[Running, int]]:
        """Those that have ended since, with their exit codes."""
        ended = []
        for lane, running in list(self._lanes.items()):
            code = running.worker.poll()
            if code is not None:
                del self._lanes[lane]
                ended.append((running, code))
        return ended

    def running(self) -> list[Running]:
        return list(self._lanes.values())

    def begun(self) -> dict[str, datetime]:
        """Who is at work → since when."""
        return {running.name: running.begun for running in self.running()}

    def pids(self) -> set[int]:
        """Those of the processes that have not ended."""
        return {
            running.worker.pid
            for running in self.running()
            if isinstance(running.worker, Process) and running.worker.poll() is None
        }

    def join_threads(self, seconds: float) -> None:
        """Wait for those who look at something; who hangs is left behind."""
        deadline = time.monotonic() + seconds
        for running in self.running():
            if isinstance(running.worker, Thread):
                running.worker.join(max(0.0, deadline - time.monotonic()))
