"""When a command has to be ended: it stalls, or takes longer than it was given."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

_POLL_SECONDS = 5.0


@dataclass(slots=True)
class Watch:
    """Tells when a child has stalled or had its time. `deadline` is on the monotonic clock."""

    pid: int
    stall_seconds: float
    deadline: float
    _seen: float = field(default_factory=time.monotonic)
    _activity: int = -1

    @property
    def patience(self) -> float:
        """The longest wait for output, in seconds."""
        return min(_POLL_SECONDS, max(0.0, self.deadline - time.monotonic()))

    def verdict(self, *, output: bool) -> str:
        """The reason to end the child, or ""; `output` says that it has just said something."""
        now = time.monotonic()
        if now >= self.deadline:
            return "not done in the time it was given"
        if output:
            self._seen = now
        elif (found := activity(self.pid)) != self._activity:
            self._activity, self._seen = found, now
        elif now - self._seen > self.stall_seconds:
            return f"stalled for {self.stall_seconds:.0f} s"
        return ""


def activity(pid: int) -> int:
    """CPU ticks and bytes moved by a process tree so far: a number that changes while it works."""
    total = 0
    todo = [pid]
    while todo:
        one = todo.pop()
        try:
            fields = Path(f"/proc/{one}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
            for line in Path(f"/proc/{one}/io").read_text(encoding="ascii").splitlines():
                name, _, value = line.partition(":")
                if name in ("rchar", "wchar"):
                    total += int(value)
            for task in os.listdir(f"/proc/{one}/task"):
                children = Path(f"/proc/{one}/task/{task}/children").read_text(encoding="ascii").split()
                todo.extend(int(child) for child in children)
        except (OSError, IndexError, ValueError):
            continue
    return total
