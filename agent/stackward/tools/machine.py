"""The machine as the kernel tells of it. A container sees the host's own /proc and /sys here, but for its name."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_PRODUCT = ("sys_vendor", "product_name", "board_name", "bios_version")


@dataclass(frozen=True, slots=True)
class Machine:
    """Sizes in bytes; `load` over 1, 5 and 15 minutes. What the kernel does not tell is "" or 0."""

    architecture: str
    kernel: str
    kernel_version: str
    cpu: str
    cores: int
    memory: Mapping[str, int]
    uptime_seconds: float
    load: tuple[float, ...]
    product: Mapping[str, str]


def read(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> Machine:
    """Raises nothing: what cannot be read is left out."""
    system = os.uname()
    cpu = _text(proc / "cpuinfo")
    memory = {
        name: int(kilobytes) * 1024
        for name, kilobytes in re.findall(r"^(\w+):\s+(\d+) kB$", _text(proc / "meminfo"), re.MULTILINE)
    }
    uptime = _text(proc / "uptime").split()
    return Machine(
        architecture=system.machine,
        kernel=system.release,
        kernel_version=system.version,
        cpu=_first(r"^(?:model name|Model|Hardware|cpu model)\s*:\s*(.+)$", cpu),
        cores=len(re.findall(r"^processor\s*:", cpu, re.MULTILINE)) or os.cpu_count() or 0,
        memory={
            "total": memory.get("MemTotal", 0),
            "available": memory.get("MemAvailable", 0),
            "swap_total": memory.get("SwapTotal", 0),
            "swap_free": memory.get("SwapFree", 0),
        },
        uptime_seconds=float(uptime[0]) if uptime else 0.0,
        load=tuple(float(part) for part in _text(proc / "loadavg").split()[:3]),
        product={name: text for name in _PRODUCT if (text := _text(sys / "class/dmi/id" / name).strip())},
    )


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


def _first(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    return match[1].strip() if match else ""
