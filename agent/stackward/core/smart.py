"""What a disk says of its own health: the few numbers of smartctl's JSON that foretell something. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_REALLOCATED, _PENDING, _UNCORRECTABLE = 5, 197, 198  # ATA's attributes


@dataclass(frozen=True, slots=True)
class Smart:
    """None is what the disk does not tell. `wear_percent` is of an SSD's life, and may exceed 100."""

    passed: bool | None = None
    temperature_celsius: int | None = None
    power_on_hours: int | None = None
    reallocated: int | None = None
    pending: int | None = None
    uncorrectable: int | None = None
    wear_percent: int | None = None
    media_errors: int | None = None

    @property
    def known(self) -> bool:
        return any(getattr(self, name) is not None for name in self.__slots__)

    @property
    def worries(self) -> tuple[str, ...]:
        """What of it a person should know, in words."""
        counted = (
            (self.reallocated, "reallocated sectors"),
            (self.pending, "sectors that wait to be reallocated"),
            (self.uncorrectable, "sectors that cannot be read"),
            (self.media_errors, "media errors"),
        )
        told = [f"{count} {what}" for count, what in counted if count]
        if self.wear_percent is not None and self.wear_percent >= 90:
            told.append(f"{self.wear_percent} % of its life used")
        return tuple(told)


def read(document: Mapping[str, Any]) -> Smart:
    """From `smartctl --json --health --attributes`; whatever shape that has, nothing is raised."""
    table = _mapping(document, "ata_smart_attributes").get("table")
    raw = {
        _number(row.get("id")): _number(_mapping(row, "raw").get("value"))
        for row in (table if isinstance(table, list) else [])
        if isinstance(row, dict)
    }
    nvme = _mapping(document, "nvme_smart_health_information_log")
    passed = _mapping(document, "smart_status").get("passed")
    return Smart(
        passed=passed if isinstance(passed, bool) else None,
        temperature_celsius=_number(_mapping(document, "temperature").get("current")),
        power_on_hours=_number(_mapping(document, "power_on_time").get("hours")),
        reallocated=raw.get(_REALLOCATED),
        pending=raw.get(_PENDING),
        uncorrectable=raw.get(_UNCORRECTABLE),
        wear_percent=_number(nvme.get("percentage_used")),
        media_errors=_number(nvme.get("media_errors")),
    )


def _mapping(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = document.get(key)
    return found if isinstance(found, dict) else {}


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
