"""Durations and sizes: how people write them, and how they are shown."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[smhdw])\s*", re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgtp])(i?b)?|b)?", re.ASCII | re.IGNORECASE)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_AGE_STEPS = ((604800 * 9, 604800, "w"), (86400 * 2, 86400, "d"), (3600, 3600, "h"), (60, 60, "m"))


def parse_duration(text: str) -> float:
    """Seconds in `45s`, `10m`, `1h30m`, `2d`, `1w`; `0` needs no unit, every other number does.

    Raises ValueError that says what would be right.
    """
    rest = text.strip()
    if rest == "0":
        return 0.0
    seconds, position = 0.0, 0
    while part := _DURATION_PART.match(rest, position):
        seconds += float(part[1]) * _SECONDS[part[2]]
        position = part.end()
    if not rest or position < len(rest):
        raise ValueError("must be a duration such as 45s, 10m, 1h30m or 2d")
    return seconds


def parse_size(text: str) -> int:
    """Bytes in `512`, `256MiB`, `1G`, `1.5GB`: `G` and `GiB` are 1024³, `GB` is 1000³, as in GNU's tools.

    Raises ValueError that says what would be right.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError("must be a size such as 512MiB, 1G or 20GB")
    number, unit, suffix = match.groups()
    base = 1000 if (suffix or "").lower() == "b" else 1024
    return int(float(number) * base ** _POWERS[unit.lower()]) if unit else int(float(number))


def format_bytes(count: float) -> str:
    """`0 B`, `1.5 KiB`, `256 MiB`: three digits at most before the unit changes, a decimal below ten only."""
    size, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if abs(size) < 999.5:
            break
        size, unit = size / 1024, larger
    decimals = 1 if unit != "B" and abs(size) < 9.95 and round(size, 1) != round(size) else 0
    return f"{size:.{decimals}f} {unit}"


def format_duration(seconds: float) -> str:
    """`0.4s`, `45s`, `1m30s`, `1h30m`, `2d3h`: the two largest units, in a form that `parse_duration` reads."""
    if seconds < 0:
        return f"-{format_duration(-seconds)}"
    if seconds < 9.95:
        return f"{seconds:.1f}s" if round(seconds, 1) != round(seconds) else f"{seconds:.0f}s"
    total = round(seconds)
    for size, unit, smaller, smaller_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if total >= size:
            rest = total % size // smaller
            return f"{total // size}{unit}" + (f"{rest}{smaller_unit}" if rest else "")
    return f"{total}s"


def format_age(then: datetime, now: datetime) -> str:
    """`just now`, `5m ago`, `3h ago`, `2d ago`, `in 4h`; both times are aware, zones and DST do not matter."""
    seconds = (now.astimezone(UTC) - then.astimezone(UTC)).total_seconds()
    for least, size, unit in _AGE_STEPS:
        if abs(seconds) >= least:
            amount = f"{abs(seconds) // size:.0f}{unit}"
            return f"{amount} ago" if seconds > 0 else f"in {amount}"
    return "just now"
