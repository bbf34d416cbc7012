"""What watches the host, and how to ask whether it is up. Pure: text and stacks go in, checks come out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stackward.core.model import Container, Stack

OFF, AUTO = "off", "auto"
_RIGHT = "must be NAME=http://… or NAME=container:NAME, separated by commas or lines, or auto, or off"
_CONTAINER = "container:"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_. -]*", re.ASCII)
# What is looked for where nobody says: by the image's name, or by the service's.
_KNOWN = (
    ("graylog", re.compile(r"(?:^|/)graylog(?:-enterprise|-datanode)?(?:[:@]|$)")),
    ("prometheus", re.compile(r"(?:^|/)prometheus(?:[:@]|$)")),
    ("grafana", re.compile(r"(?:^|/)grafana(?:-oss|-enterprise)?(?:[:@]|$)")),
    ("fluentbit", re.compile(r"(?:^|/)fluent-?bit(?:[:@]|$)")),
)


@dataclass(frozen=True, slots=True)
class Check:
    """Ask a `url`, or look at a container by its name or ID. Of a `guessed` one that nobody runs nothing is said."""

    name: str
    url: str = ""
    container: str = ""
    guessed: bool = False


def parse_checks(text: str) -> tuple[Check, ...] | None:
    """`prometheus=http://prometheus:9090/-/healthy,fluentbit=container:fluentbit`; `off`: none at all; `auto`: None."""
    if text.strip().lower() in (OFF, AUTO):
        return None if text.strip().lower() == AUTO else ()
    checks = tuple(_check(part.strip()) for part in re.split(r"[\n,](?=\s*[^,\n=]+=)", text) if part.strip(" ,\n"))
    if len({check.name for check in checks}) < len(checks):
        raise ValueError("must name each check once")
    return checks


def _check(part: str) -> Check:
    name, separator, how = (piece.strip() for piece in part.rstrip(", \n").partition("="))
    if not separator or not _NAME.fullmatch(name):
        raise ValueError(_RIGHT)
    if re.fullmatch(r"https?://[^\s/?#]\S*", how):
        return Check(name, url=how)
    if how.startswith(_CONTAINER) and _NAME.fullmatch(how.removeprefix(_CONTAINER)):
        return Check(name, container=how.removeprefix(_CONTAINER))
    raise ValueError(_RIGHT)


def guessed(stacks: Sequence[Stack]) -> tuple[Check, ...]:
    """The containers of Graylog, Prometheus, Grafana and Fluent Bit that belong to stacks."""
    return tuple(check for name, pattern in _KNOWN for check in _of_kind(name, pattern, stacks))


def _of_kind(name: str, pattern: re.Pattern[str], stacks: Sequence[Stack]) -> Iterator[Check]:
    found = [
        container
        for stack in stacks
        for container in stack.containers
        if not container.one_off and (pattern.search(container.image) or pattern.search(container.service))
    ]
    for container in found:
        label = name if len(found) == 1 else f"{name} ({container.name})"
        yield Check(label, container=container.id, guessed=True)


def named(container: str, containers: Sequence[Container]) -> Container | None:
    """By name or ID; where Compose made it, its service's name will do if no other has it."""
    exact = [one for one in containers if container in (one.name, one.id)]
    services = [one for one in containers if one.service == container and not one.one_off]
    return exact[0] if exact else services[0] if len(services) == 1 else None
