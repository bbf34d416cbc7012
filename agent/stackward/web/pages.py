"""What the pages say. They read the store and the daemon's sign of life; they look at nothing else."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from stackward.core.errors import StackwardError
from stackward.core.units import format_age
from stackward.observe import metrics
from stackward.steps.report import heartbeat

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from stackward.config import Settings
    from stackward.store import Store

_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Page:
    status: HTTPStatus
    content_type: str
    body: bytes


class Pages:
    """Usable from several threads; one at a time is answered."""

    def __init__(self, settings: Settings, open_store: Callable[[], Store], clock: Callable[[], datetime]) -> None:
        self._settings = settings
        self._clock = clock
        self._source = _Source(open_store)
        self._lock = threading.Lock()

    def get(self, path: str) -> Page:
        """The page at `path`, without its query."""
        if path not in _PAGES:
            return Page(HTTPStatus.NOT_FOUND, _TEXT, b"there is /metrics, and there is /healthz\n")
        with self._lock:
            return _PAGES[path](self)

    def close(self) -> None:
        with self._lock:
            self._source.close()

    def _metrics(self) -> Page:
        try:
            body = self._source.metrics()
        except StackwardError as error:
            return Page(HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, f"{error}\n".encode())
        alive = metrics.heartbeat_exposition(heartbeat.last(self._settings))
        return Page(HTTPStatus.OK, metrics.CONTENT_TYPE, body + alive)

    def _health(self) -> Page:
        """Healthy if the daemon lives and the history can be read."""
        now, beat = self._clock(), heartbeat.last(self._settings)
        problems = []
        if beat is None:
            problems.append("the daemon has given no sign of life yet")
        elif now - beat > heartbeat.LATE:
            problems.append(f"the daemon's last sign of life was {format_age(beat, now)}")
        try:
            self._source.probe()
        except StackwardError as error:
            problems.append(error.message)
        body = json.dumps({"healthy": not problems, "problems": problems}).encode() + b"\n"
        status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
        return Page(status, "application/json", body)


_PAGES = {"/metrics": Pages._metrics, "/healthz": Pages._health}  # noqa: SLF001 - its own table


class _Source:
    """The store, opened anew when its file is another one; what it says is written down anew when it has changed."""

    def __init__(self, open_store: Callable[[], Store]) -> None:
        self._open = open_store
        self._store: Store | None = None
        self._written: tuple[int, bytes] | None = None

    def metrics(self) -> bytes:
        store = self._current()
        version = store.data_version()
        if self._written is None or self._written[0] != version:
            facts = replace(store.facts(), heartbeat_at=None)
            self._written = (version, metrics.exposition(facts))
        return self._written[1]

    def probe(self) -> None:
        """Raises StackwardError where the store cannot be read."""
        self._current().data_version()
        self._current().note("view")

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
        self._store = self._written = None

    def _current(self) -> Store:
        if self._store is None or self._store.is_replaced():
            self.close()
            self._store = self._open()
        return self._store
