"""What Btrfs says of its devices and its space. Paths are mounted file systems; errors are CommandError or ValueError."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stackward.tools import process

_COUNTERS = ("write_io_errs", "read_io_errs", "flush_io_errs", "corruption_errs", "generation_errs")
_LIMIT_SECONDS = 60.0
_ROW = re.compile(r"^ +([A-Z][^:\n]*):[ \t]+(\d+(?:\.\d+)?)\b", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Device:
    """Error counters since they were last reset (`btrfs device stats -z`)."""

    path: str
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.errors.values())


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes. `missing` belong to devices that are gone; `unallocated` may become data or metadata."""

    size: int
    allocated: int
    unallocated: int
    missing: int
    used: int
    free_estimated: int


def device_stats(path: Path) -> tuple[Device, ...]:
    done = process.run(["btrfs", "--format", "json", "device", "stats", path], time_limit_seconds=_LIMIT_SECONDS)
    document: dict[str, Any] = json.loads(done.stdout)
    return tuple(
        Device(str(entry.get("device", "")), {name: int(entry.get(name, 0)) for name in _COUNTERS})
        for entry in document["device-stats"]
    )


def usage(path: Path) -> Usage:
    done = process.run(["btrfs", "filesystem", "usage", "-b", path], time_limit_seconds=_LIMIT_SECONDS)
    return parse_usage(done.text)


def parse_usage(text: str) -> Usage:
    """Raises ValueError where it is not what `btrfs filesystem usage -b` prints."""
    rows = {name: int(float(number)) for name, number in _ROW.findall(text)}
    try:
        return Usage(
            size=rows["Device size"],
            allocated=rows["Device allocated"],
            unallocated=rows["Device unallocated"],
            missing=rows["Device missing"],
            used=rows["Used"],
            free_estimated=rows["Free (estimated)"],
        )
    except KeyError as error:
        raise ValueError(f"btrfs filesystem usage does not tell: {error.args[0]}") from error
