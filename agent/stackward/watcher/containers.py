"""Listens to Docker: a container that dies, is unhealthy or runs out of memory has the health job look at once.

The job judges, has people told once, and tells when all is well again. Nothing hangs on the stream: it ends whenever Docker
does, and every few minutes by itself; then it goes on where it was, and the job looks every few minutes anyhow.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from stackward.core.errors import StackwardError
from stackward.core.happenings import Verdict, Watchman
from stackward.core.settling import Settling
from stackward.tools.docker import Docker, DockerError
from stackward.wiring import build

if TYPE_CHECKING:
    from stackward.config import Settings
    from stackward.core.happenings import Happening
    from stackward.wiring import Appliance

_LOG = logging.getLogger("stackward.watcher")

HEALTH = "health"
_STRETCH_SECONDS = 300.0
_EARLY_SECONDS = 5.0  # a stream that ends sooner than it was to, ended with its engine
_PAUSES = (1.0, 2.0, 5.0, 15.0, 30.0)
# Docker starts a container again after a moment: a look at once would see it neither dead nor alive.
_REST_SECONDS = 5.0
_REST_AT_MOST_SECONDS = 20.0


class Containers(threading.Thread):
    """Two threads: this one listens, `Asker` asks for looks. Both may be left behind."""

    def __init__(self, settings: Settings, ending: threading.Event) -> None:
        super().__init__(name="docker events", daemon=True)
        self._docker = Docker(settings.docker_host)
        self._ending = ending
        self._watchman = Watchman()
        self._asker = Asker(settings, ending)
        self._since = 0.0
        self._failures = 0
        self._lost = False  # something may have happened that nobody told us

    def run(self) -> None:
        self._asker.start()
        self._since = time.time()
        while not self._ending.is_set():
            try:
                self._listen()
                self._failures = 0
            except DockerError as error:
                if not self._failures:
                    _LOG.warning("%s", error)
                self._failures += 1
                self._lost = True
            self._ending.wait(_PAUSES[min(self._failures, len(_PAUSES) - 1)])

    def _listen(self) -> None:
        self._docker.ping()
        if self._lost:
            _LOG.info("Docker answers again")
            self._asker.ask()  # an engine that has restarted does not tell what happened before
            self._failures, self._lost = 0, False
        until = time.time() + _STRETCH_SECONDS
        for happening in self._docker.container_events(self._since, until):
            if happening.at > self._since:
                self._since = happening.at
                self._hear(happening)
            if self._ending.is_set():
                return
        self._lost = time.time() < until - _EARLY_SECONDS

    def _hear(self, happening: Happening) -> None:
        verdict: Verdict = self._watchman.judge(happening)
        if verdict.text:
            extra = {"container": happening.name, "project": happening.project}
            _LOG.log(logging.WARNING if verdict.look else logging.INFO, "%s", verdict.text, extra=extra)
        if verdict.look:
            self._asker.ask()
        elif verdict.better:
            self._asker.ask(if_troubled=True)


class Asker(threading.Thread):
    """Has the health job look, once things have come to rest: a stack that starts is many events."""

    def __init__(self, settings: Settings, ending: threading.Event) -> None:
        super().__init__(name="asker", daemon=True)
        self._settings = settings
        self._ending = ending
        self._lock = threading.Lock()
        self._look = Settling(_REST_SECONDS, _REST_AT_MOST_SECONDS)
        self._better = Settling(_REST_SECONDS, _REST_AT_MOST_SECONDS)

    def ask(self, *, if_troubled: bool = False) -> None:
        """`if_troubled`: only where something is known to be wrong now, which may be right again."""
        with self._lock:
            (self._better if if_troubled else self._look).touch(time.monotonic())

    def run(self) -> None:
        while not self._ending.wait(1.0):
            with self._lock:
                look = self._look.is_due(time.monotonic())
                better = self._better.is_due(time.monotonic())
            if look or better:
                try:
                    self._request(only_if_troubled=not look)
                except StackwardError as error:
                    _LOG.warning("%s", error)

    def _request(self, *, only_if_troubled: bool) -> None:
        appliance: Appliance = build(self._settings)
        try:
            if not only_if_troubled or appliance.store.alerts(HEALTH):
                appliance.store.request(HEALTH, appliance.now())
        finally:
            appliance.close()
