"""The week: what runs by itself and when, unless settings say otherwise; and how late is too late. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

ON, OFF = "on", "off"
PREFIX = "STACKWARD_SCHEDULE"


@dataclass(frozen=True, slots=True)
class Row:
    """A job or chain with its time: a cron expression in local time.

    `off` says why it does not run unless a setting says when. A `frequent` one runs within the daemon, beside whatever
    else goes on, and its history is kept for a week only.
    """

    name: str
    schedule: str
    summary: str
    off: str = ""
    frequent: bool = False

    @property
    def variable(self) -> str:
        return f"{PREFIX}_{self.name.upper().replace('-', '_')}"

    @property
    def description(self) -> str:
        return f"when `{self.name}` begins" + (f" (`{ON}`: `{self.schedule}`)" if self.off else "")

    @property
    def default(self) -> str:
        """What its variable says where nobody sets it."""
        return OFF if self.off else self.schedule


WEEK = (
    Row("health", "*/5 * * * *", "containers of every stack: running, healthy, restarting", frequent=True),
    Row("observability", "*/10 * * * *", "are those up that watch the host: Graylog, Prometheus, …", frequent=True),
    Row("snapshot", "30 0 * * *", "a snapshot of the Btrfs volume; those that the grid does not keep go"),
    Row("staging", "30 0 * * *", "`.nightly` is made anew, and staging instances start on it"),
    Row("nightly", "0 2 * * *", "backup-config, backup-data, verify what is new, prune"),
    Row("weekly", "0 3 * * 0", "the same with a full scan, and verify everything kept"),
    Row(
        "docker-prune",
        "0 4 * * 6",
        "what Docker has no use for goes, less what a way back needs",
        off="it removes what is not ours: STACKWARD_SCHEDULE_DOCKER_PRUNE=on switches it on",
    ),
    Row("drill", "30 4 * * 3", "stacks are restored beside production, booted, probed, and removed"),
    Row("audit", "0 6 * * 1", "ports, images, compose files, what backups cover: docker-audit.json"),
    Row("host-report", "30 6 * * *", "hardware, disks, space, Docker, failed units: docker-host.json"),
    Row("rotate-logs", "10 0 * * *", "logs and reports are put aside, compressed, and gone after a week"),
)


@dataclass(frozen=True, slots=True)
class Planned:
    """A row as it will be followed: `schedule` is "" where it is off, and `off` says why."""

    row: Row
    schedule: str
    off: str = ""

    @property
    def name(self) -> str:
        return self.row.name


def plan(said: Mapping[str, str], *, on: bool, rows: Sequence[Row] = WEEK) -> tuple[Planned, ...]:
    """The rows as settings have them: `said` is name → cron expression, `on` or `off`; nothing said: as in the table."""
    return tuple(_planned(row, said.get(row.name, ""), on) for row in rows)


def _planned(row: Row, said: str, on: bool) -> Planned:
    if not on:
        return Planned(row, "", f"{PREFIX} is false")
    if said == OFF:
        return Planned(row, "", f"{row.variable} is off")
    if not said and row.off:
        return Planned(row, "", row.off)
    return Planned(row, row.schedule if said in ("", ON) else said)


def fixed_delay(limit: timedelta, interval_seconds: float, seed: str) -> timedelta:
    """How much later than its time a row begins: always the same for one `seed` (host and row), up to `limit`.

    Never more than a quarter of the pause between two runs.
    """
    most = min(limit.total_seconds(), interval_seconds / 4)
    share = int.from_bytes(hashlib.sha256(seed.encode("utf-8", "backslashreplace")).digest()[:4]) / (1 << 32)
    return timedelta(seconds=int(most * share))


_LEAST = timedelta(minutes=15)
_LEAST_KNOWN = timedelta(hours=1)
_MOST = timedelta(days=1)
_ENOUGH = 3  # runs that must have ended well before they say how long one takes


def patience(interval_seconds: float, durations: Sequence[timedelta]) -> timedelta:
    """How long after its time a run may go on before somebody should look at it.

    Half the pause until the next one; where earlier runs say how long one takes, four times the longest of them.
    """
    allowed = min(max(_LEAST, timedelta(seconds=interval_seconds / 2)), _MOST)
    if len(durations) < _ENOUGH:
        return allowed
    return min(allowed, max(_LEAST_KNOWN, 4 * max(durations)))
