"""The host's ports that a staging instance takes: at which addresses, and who else wants them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stackward.core.model import Publish

LOOPBACK = "127.0.0.1"
_EVERYWHERE = ("", "0.0.0.0")  # noqa: S104 - to be recognised
_ALL = ("", "::")


@dataclass(frozen=True, slots=True, order=True)
class HostPort:
    """A port of the host; the address is "" where it is open at all of them, "::" at all of IPv6."""

    port: int
    address: str = ""
    protocol: str = "tcp"

    def meets(self, other: HostPort) -> bool:
        """Whether no two containers can have both."""
        is_same = (self.port, self.protocol) == (other.port, other.protocol)
        return is_same and (self.address == other.address or self.address in _ALL or other.address in _ALL)

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.port}" if address else str(self.port)


def published(model: Mapping[str, Any]) -> Iterator[HostPort]:
    """The ports of the host that a project takes; of a range, any."""
    for service in (model.get("services") or {}).values():
        for port in (service or {}).get("ports") or []:
            if isinstance(port, Mapping):
                yield from _taken(port)


def addresses(services: Mapping[str, Mapping[str, Any]], wish: Publish, host_of: str) -> tuple[str, ...]:
    """Where the instance's port is open: where production has the same port of the service open, else only on the host.

    `services` are production's; `host_of` is the one whose network the service uses. An address that is asked for counts.
    """
    if wish.address:
        return (_plain(wish.address),)
    found = {
        taken.address
        for name in {wish.service, host_of}
        for port in (services.get(name) or {}).get("ports") or []
        if isinstance(port, Mapping) and str(port.get("target")) == str(wish.target)
        for taken in _taken(port)
        if taken.protocol == "tcp"
    }
    return ("",) if "" in found else tuple(sorted(found)) or (LOOPBACK,)


def _taken(port: Mapping[str, Any]) -> Iterator[HostPort]:
    first, _, last = str(port.get("published") or "").partition("-")
    if not first.isdecimal() or not (last or first).isdecimal():
        return
    for number in range(int(first), int(last or first) + 1):
        yield HostPort(number, _plain(str(port.get("host_ip") or "")), str(port.get("protocol") or "tcp"))


def _plain(address: str) -> str:
    bare = address.strip("[]")
    return "" if bare in _EVERYWHERE else bare
