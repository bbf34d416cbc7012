"""The networks that the host has a way to, as far as they are seen from here."""

from __future__ import annotations

import ipaddress
from pathlib import Path

_TABLE = Path("/proc/net/route")  # addresses and masks in hexadecimal digits, least significant byte first


def subnets(table: Path = _TABLE) -> tuple[str, ...]:
    """The subnets of IPv4 that there is a route to, without the default route; none where that cannot be told."""
    try:
        lines = table.read_text(encoding="ascii").splitlines()[1:]
    except (OSError, ValueError):
        return ()
    found = []
    for line in lines:
        fields = line.split()
        if len(fields) > 7 and int(fields[7], 16):  # the mask's column
            found.append(f"{_address(fields[1])}/{_address(fields[7])}")
    return tuple(found)


def _address(digits: str) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(bytes.fromhex(digits)[::-1])
