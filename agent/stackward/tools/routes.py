"""Linux's table of routes, as it writes it."""

from __future__ import annotations

import ipaddress

TABLE = "/proc/net/route"  # addresses and masks in hexadecimal digits, least significant byte first
_MASK = 7  # its column


def subnets(table: str) -> tuple[str, ...]:
    """The subnets of IPv4 that there is a route to, without the default route; lines of another kind are left out."""
    found = []
    for line in table.splitlines():
        fields = line.split()
        try:
            if len(fields) > _MASK and int(fields[_MASK], 16):
                found.append(f"{_address(fields[1])}/{_address(fields[_MASK])}")
        except ValueError:
            continue
    return tuple(found)


def _address(digits: str) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(bytes.fromhex(digits)[::-1])
