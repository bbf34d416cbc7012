"""Which ports of the host lead where, and who listens on the others. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stackward.core.model import Container, PublishedPort, Stack

_EVERYWHERE = ("0.0.0.0", "::", "*", "")  # noqa: S104 - to be recognised
_LOOPBACK = ("127.", "::1")


@dataclass(frozen=True, slots=True)
class Listener:
    """A port of the host on which somebody listens; `programs` may be empty where the kernel does not tell."""

    protocol: str
    address: str
    port: int
    programs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Published:
    """A port that a running container has published. `listener` is None where nobody was seen to listen.

    `reach` is "host" (loopback only), "address" (one of the host's) or "all".
    """

    port: PublishedPort
    container: Container
    stack: str
    reach: str
    listener: Listener | None = None


def published(
    stacks: Sequence[Stack], containers: Sequence[Container], listeners: Sequence[Listener]
) -> list[Published]:
    """Every published port of the host's containers, in the order of ports."""
    owners = {container.id: stack.name for stack in stacks for container in stack.containers}
    found = [
        Published(port, container, owners.get(container.id, ""), reach(port.address), _listener(port, listeners))
        for container in containers
        for port in container.ports
    ]
    return sorted(found, key=lambda one: (one.port.port, one.port.protocol, one.port.address))


def others(listeners: Sequence[Listener], ports: Sequence[PublishedPort]) -> list[Listener]:
    """Who listens on ports that no container has published."""
    rest = [one for one in listeners if not any(_matches(port, one) for port in ports)]
    return sorted(rest, key=lambda one: (one.port, one.protocol, one.address))


def reach(address: str) -> str:
    if address in _EVERYWHERE:
        return "all"
    return "host" if address.startswith(_LOOPBACK) else "address"


def _listener(port: PublishedPort, listeners: Sequence[Listener]) -> Listener | None:
    return next((one for one in listeners if _matches(port, one)), None)


def _matches(port: PublishedPort, listener: Listener) -> bool:
    """A socket on all addresses takes what goes to each of them."""
    if (port.protocol, port.port) != (listener.protocol, listener.port):
        return False
    address = listener.address.partition("%")[0]
    return address in (port.address, "*") or reach(address) == "all" == reach(port.address)
