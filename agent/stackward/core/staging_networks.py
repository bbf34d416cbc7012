"""The networks of a staging instance: they lead nowhere, and take no addresses that Docker has for production's. Pure.

Of its own accord Docker has subnets for some thirty networks. If instances took those, production's next network would
have none. So each network of an instance gets a small one out of a range of ours, the same one every time if it is free.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Any

LABEL = "stackward.instance"  # of networks and volumes: which project of ours they were made for
_SMALLEST = 27  # 29 addresses beside the host's
_SPARE = 8  # the network's own address, broadcast, gateway, and the containers of those who look
# A network that leads nowhere. Without `inhibit_ipv4` the host itself would answer in it, and with it every published port.
_NOWHERE = {"internal": True, "driver_opts": {"com.docker.network.bridge.inhibit_ipv4": "true"}}


@dataclass(frozen=True, slots=True)
class Room:
    """Where subnets may be: in `ranges`, and nowhere that is `taken`. `own` are those that the project has now, by network.

    Without ranges Docker chooses. `called` is how whoever set them knows them.
    """

    ranges: tuple[IPv4Network, ...] = ()
    taken: tuple[IPv4Network, ...] = ()
    own: Mapping[str, IPv4Network] = field(default_factory=dict)
    called: str = ""


def inner(project: str) -> dict[str, Any]:
    return {**_NOWHERE, "labels": {LABEL: project}}


def edge(project: str) -> dict[str, Any]:
    """The one that published ports lead through."""
    return {"labels": {LABEL: project}}


def claim(project: str, model: Mapping[str, Any]) -> None:
    """Every network and volume that Compose makes for the instance bears our label, as whoever removes it asks for."""
    for section in ("networks", "volumes"):
        for declared in (model.get(section) or {}).values():
            if declared is not None and not declared.get("external"):
                declared["labels"] = {**(declared.get("labels") or {}), LABEL: project}


def allot(project: str, containers: Mapping[str, int], room: Room) -> dict[str, IPv4Network | None]:
    """A subnet for each network, by how many containers it will have; None where no more is free."""
    taken = list(room.taken)
    found: dict[str, IPv4Network | None] = {}
    for name, count in sorted(containers.items()):
        prefix = min(_SMALLEST, 32 - (count + _SPARE - 1).bit_length())
        chosen = next(
            (one for one in _candidates(project, name, prefix, room) if not any(map(one.overlaps, taken))), None
        )
        found[name] = chosen
        if chosen is not None:
            taken.append(chosen)
    return found


def containers_of(services: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """How many containers each network will have."""
    found: dict[str, int] = {}
    for service in services.values():
        replicas = (service.get("deploy") or {}).get("replicas")
        count = int(service.get("scale") or 1) if replicas is None else int(replicas)
        for name in service.get("networks") or {}:
            found[name] = found.get(name, 0) + count
    return found


def subnets(model: Mapping[str, Any]) -> Iterator[IPv4Network]:
    """Those that a project asks for."""
    for network in (model.get("networks") or {}).values():
        for one in ((network or {}).get("ipam") or {}).get("config") or []:
            yield from parsed([str(one.get("subnet") or "")])


def parsed(texts: Iterable[str]) -> Iterator[IPv4Network]:
    """The subnets of IPv4 among them."""
    for text in texts:
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            continue
        if isinstance(network, IPv4Network) and network.prefixlen:
            yield network


def _candidates(project: str, name: str, prefix: int, room: Room) -> Iterator[IPv4Network]:
    """What it has now, and then all of that size, from a place of its own on."""
    if (now := room.own.get(name)) is not None and now.prefixlen <= prefix and _holds(room.ranges, now):
        yield now
    slots = [(one, 1 << max(0, prefix - one.prefixlen)) for one in room.ranges if one.prefixlen <= prefix]
    total = sum(count for _range, count in slots)
    begin = int.from_bytes(hashlib.sha256(f"{project}/{name}".encode("utf-8", "surrogateescape")).digest()[:8])
    for number in range(total):
        place = (begin + number) % total
        for one, count in slots:
            if place < count:
                yield IPv4Network((int(one.network_address) + (place << (32 - prefix)), prefix))
                break
            place -= count


def _holds(ranges: Collection[IPv4Network], network: IPv4Network) -> bool:
    return any(network.subnet_of(one) for one in ranges)
