"""The daemon's lookout: a thread that looks at the host now and then, and has people told what stands wrong.

It has a store and a Docker client of its own, so that whatever hangs (a dead network disk, an engine that does not answer)
hangs here, and neither a run nor the daemon's heartbeat waits for it. Messages are sent by a process that may be killed.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import TYPE_CHECKING

from stackward.core.errors import StackwardError
from stackward.observe import messages
from stackward.tools.process import Background
from stackward.week import afterwards
from stackward.wiring import build

if TYPE_CHECKING:
    from stackward.config import Settings
    from stackward.wiring import Appliance

_LOG = logging.getLogger("stackward.week.lookout")

LOOK_SECONDS = 120.0
TICK_SECONDS = 5.0
# Longer than a delivery's own limit: who is over it hangs.
DELIVERY_SECONDS = 60.0
SCOPE = "standing"


class Lookout(threading.Thread):
    """Runs until `ending` is set; it may be left behind where it hangs."""

    def __init__(
        self,
        settings: Settings,
        ending: threading.Event,
        *,
        look_seconds: float = LOOK_SECONDS,
        tick_seconds: float = TICK_SECONDS,
    ) -> None:
        super().__init__(name="lookout", daemon=True)
        self._settings = settings
        self._ending = ending
        self._look_seconds = look_seconds
        self._tick_seconds = tick_seconds
        self._appliance: Appliance | None = None
        self._before: dict[str, str] = {}
        self._said = ""
        self._sender: Background | None = None
        self._sender_until = 0.0

    def run(self) -> None:
        next_look = 0.0
        while not self._ending.is_set():
            try:
                if time.monotonic() >= next_look:
                    next_look = time.monotonic() + self._look_seconds
                    self._appliance = self._anew()
                    self._look(self._appliance)
                if self._appliance is not None:
                    self._send(self._appliance)
            except (StackwardError, OSError) as error:
                self._say(str(error))
            self._ending.wait(self._tick_seconds)
        if self._sender is not None:
            self._sender.kill()
        if self._appliance is not None:
            self._appliance.close()

    def _anew(self) -> Appliance:
        """Wired again for every look: a store that was moved aside, or an engine that was away, is no longer ours."""
        if self._appliance is not None:
            self._appliance.close()
            self._appliance = None
        return build(self._settings)

    def _look(self, appliance: Appliance) -> None:
        """What stands wrong at two looks in a row is told: an engine that restarts is no news."""
        now = appliance.now()
        name = appliance.host_name
        found = afterwards.look(appliance)
        appliance.store.keep_view(found.view)
        lasting = {key: text for key, text in found.conditions.items() if key in self._before}
        gone = set(appliance.store.alerts(SCOPE)) - set(found.conditions)
        changes = appliance.store.change_alerts(
            SCOPE, lasting, fine=gone, at=now, compose=lambda changes: messages.standing(changes, now)
        )
        for text in changes.raised.values():
            _LOG.warning("%s", text, extra={"host": name})
        for key in changes.recovered:
            _LOG.info("%s: fine again", key, extra={"host": name})
        self._before = found.conditions
        self._say(afterwards.pushed(appliance) if appliance.settings.pushgateway_url else "")

    def _send(self, appliance: Appliance) -> None:
        if self._sender is not None:
            code = self._sender.poll()
            if code is None and time.monotonic() < self._sender_until:
                return
            if code is None:
                self._sender.kill()
                _LOG.warning("messages were not sent within %.0f s", DELIVERY_SECONDS)
            self._sender = None
        if appliance.store.due_notices(appliance.now()):
            self._sender = Background([sys.executable, "-m", "stackward.cli.main", "notify", "--pending"])
            self._sender_until = time.monotonic() + DELIVERY_SECONDS

    def _say(self, text: str) -> None:
        """Warn of what was not already said the last time; "" is that all is well."""
        if text and text != self._said:
            _LOG.warning("%s", text)
        self._said = text
