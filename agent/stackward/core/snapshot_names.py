"""Names of snapshots of the volume: `YYYYMMDD_HHMMSS`, local time (`TZ`), and `-LABEL` where somebody named it."""

from __future__ import annotations

import re
from datetime import datetime, tzinfo

_STAMP = "%Y%m%d_%H%M%S"
_NAME = re.compile(r"(\d{8}_\d{6})(?:-([A-Za-z0-9][A-Za-z0-9._-]{0,63}))?", re.ASCII)


def name_for(when: datetime, label: str = "") -> str:
    """Raises ValueError for a label that cannot be one, or that would mean another snapshot too."""
    name = when.strftime(_STAMP) + (f"-{label}" if label else "")
    if not _NAME.fullmatch(name):
        raise ValueError(
            "must be up to 64 letters, digits, dots, dashes and underscores, and begin with one of the first"
        )
    if _NAME.fullmatch(label) or _digits(label):
        raise ValueError("must be something else than a date or the name of a snapshot: those mean other ones")
    return name


def parse(name: str, zone: tzinfo) -> tuple[datetime, str] | None:
    """When it was made, and its label; None for what is no snapshot of ours."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    try:
        return datetime.strptime(match[1], _STAMP).replace(tzinfo=zone), match[2] or ""
    except ValueError:
        return None


def means(wanted: str, name: str) -> bool:
    """Whether somebody who says `wanted` may mean this one: its name, its label, its day, or its time to the minute."""
    match = _NAME.fullmatch(name)
    if match is None:
        return False
    digits = _digits(wanted)
    return wanted in (name, match[2]) or bool(digits and match[1].replace("_", "").startswith(digits))


def _digits(wanted: str) -> str:
    """Of a date, or a time to the minute or the second; "" of anything else."""
    digits = re.sub(r"[-:_. T]", "", wanted)
    return digits if re.fullmatch(r"[0-9]{8}(?:[0-9]{4}(?:[0-9]{2})?)?", digits) else ""
