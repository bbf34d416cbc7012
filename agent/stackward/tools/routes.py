"""Linux's table of routes, as it writes it."""

from __future__ import annotations

import ipaddress

TABLE = "/proc/net/route"  # addresses and masks in hexadecimal digits, least significant byte first
_MASK = 7  # its column
_NARROW = 8  # bits; a wider route is a part of the default one: VPNs lay two halves over it, or some more parts


def subnets(table: str) -> tuple[str, ...]:
    """The subnets of IPv4 that there is a route to, less the default route, whole or in parts; other lines are left out."""
    found = []
    for line in table.splitlines():
        fields = line.split()
        try:
            if len(fields) > _MASK and int(fields[_MASK], 16).bit_count() >= _NARROW:
                found.append(f"{_address(fields[1])}/{_address(fields[_MASK])}")
        except ValueError:
            continue
    return tuple(found)


def _address(digits: str) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(bytes.fromhex(digits)[::-1])
