"""What Btrfs says of its devices and its space. Paths are mounted file systems; errors are CommandError or ValueError."""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stackward.tools import process

_COUNTERS = ("write_io_errs", "read_io_errs", "flush_io_errs", "corruption_errs", "generation_errs")
_LIMIT_SECONDS = 60.0
_FS_INFO_BYTES = 1024
_FS_INFO = 0x8400941F  # BTRFS_IOC_FS_INFO: the highest ID of a device, their number, the file system's UUID, …
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
    """Bytes; `unallocated` may become data or metadata."""

    size: int
    allocated: int
    unallocated: int
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


def missing_devices(path: Path, sys: Path = Path("/sys")) -> int:
    """How many devices the kernel misses; the `btrfs` command counts those, too, whose nodes a container cannot see.

    Raises:
        OSError: the file system cannot be asked.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        answer = fcntl.ioctl(descriptor, _FS_INFO, bytes(_FS_INFO_BYTES))
    finally:
        os.close(descriptor)
    _highest, _count, identity = struct.unpack_from("=QQ16s", answer)
    devices = (sys / "fs/btrfs" / str(uuid.UUID(bytes=identity)) / "devinfo").glob("*/missing")
    return sum(device.read_text(encoding="ascii").strip() == "1" for device in devices)


def parse_usage(text: str) -> Usage:
    """Raises ValueError where it is not what `btrfs filesystem usage -b` prints."""
    rows = {name: int(float(number)) for name, number in _ROW.findall(text)}
    try:
        return Usage(
            size=rows["Device size"],
            allocated=rows["Device allocated"],
            unallocated=rows["Device unallocated"],
            used=rows["Used"],
            free_estimated=rows["Free (estimated)"],
        )
    except KeyError as error:
        raise ValueError(f"btrfs filesystem usage does not tell: {error.args[0]}") from error
