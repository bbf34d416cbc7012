"""What Docker tells of containers, and which of it is worth a look now. Pure.

A container that somebody stops is told so first (`kill`); one that ends without that died. How things stand is for the
look to judge: this only decides when one is due, and bounds how many there are for a container that restarts in a loop.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from stackward.core.model import display

DIED, OOM, KILLED, STARTED, GONE = "die", "oom", "kill", "start", "destroy"
UNHEALTHY, HEALTHY = "health_status: unhealthy", "health_status: healthy"
ACTIONS = (DIED, OOM, KILLED, STARTED, GONE, UNHEALTHY, HEALTHY)
# Signals by which programs are asked to read their settings or open their logs again, not to end.
_HARMLESS = frozenset({"1", "10", "12", "HUP", "USR1", "USR2", "SIGHUP", "SIGUSR1", "SIGUSR2"})
_STOP_SECONDS = 600.0  # nobody waits longer for a container to end
_WINDOW_SECONDS = 600.0
_LOOKS = 3  # within the window: at the third death, a loop is seen as one


@dataclass(frozen=True, slots=True)
class Happening:
    """One event. `at` is in seconds since the epoch, `signal` and `exit_code` as Docker writes them, or ""."""

    at: float
    action: str
    container: str
    name: str
    project: str
    exit_code: str = ""
    signal: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`text` is what to write down, or ""; `better`: it may put right what was wrong."""

    text: str = ""
    look: bool = False
    better: bool = False


@dataclass(slots=True)
class Watchman:
    """Remembers who was told to stop, and who died lately."""

    _told: dict[str, float] = field(default_factory=dict)
    _deaths: dict[str, deque[float]] = field(default_factory=dict)

    def judge(self, one: Happening) -> Verdict:
        who = f"{display(one.name)} of {display(one.project)}"
        if one.action == KILLED:
            if one.signal not in _HARMLESS:
                self._told[one.container] = one.at
            return Verdict()
        if one.action == GONE:
            self._told.pop(one.container, None)
            self._deaths.pop(one.container, None)
            return Verdict(better=True)
        if one.action in (STARTED, HEALTHY):
            self._told.pop(one.container, None)
            return Verdict(better=True)
        if one.action == UNHEALTHY:
            return Verdict(f"{who} is unhealthy", look=True)
        if one.action == OOM:
            return Verdict(f"{who} ran out of memory", look=True)
        return self._died(one, who) if one.action == DIED else Verdict()

    def _died(self, one: Happening, who: str) -> Verdict:
        told = self._told.get(one.container)
        if told is not None and one.at - told < _STOP_SECONDS:
            return Verdict()
        if one.exit_code == "0":
            return Verdict(f"{who} ended")
        deaths = self._deaths.setdefault(one.container, deque(maxlen=_LOOKS + 1))
        deaths.append(one.at)
        recent = sum(one.at - at < _WINDOW_SECONDS for at in deaths)
        return Verdict(f"{who} died with exit code {one.exit_code or '?'}", look=recent <= _LOOKS)
