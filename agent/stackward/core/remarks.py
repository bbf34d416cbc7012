"""What a person should look at among ports, images and stacks. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from stackward.core.exposure import Published
from stackward.core.model import Container, Stack, display

_OLD_DAYS = 365
# What nobody outside the host should reach, as a rule: administration and databases, by the port within the container.
_DELICATE = {
    2375: "the Docker API without TLS",
    3306: "MySQL or MariaDB",
    5432: "PostgreSQL",
    5984: "CouchDB",
    6379: "Redis",
    9200: "Elasticsearch or OpenSearch",
    11211: "memcached",
    27017: "MongoDB",
}


class Severity(StrEnum):
    ERROR = "error"  # it does not work, or not as it is meant to
    WARN = "warn"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """`stack` is "" where it is about none, or about several."""

    severity: Severity
    topic: str  # ports, images, compose, coverage, lint
    text: str
    stack: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """`name` is what its containers call it; `created_at` is when it was built, not when it was pulled."""

    id: str
    name: str
    digests: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    created_at: datetime | None = None
    size_bytes: int | None = None
    containers: tuple[Container, ...] = ()

    def age_days(self, now: datetime) -> int | None:
        """None where it is not known; builds that are reproducible bear the date 0 or none."""
        if self.created_at is None or self.created_at.year < 2000:
            return None
        return max(0, (now - self.created_at).days)


def image(info: Mapping[str, Any], containers: Sequence[Container]) -> Image:
    """From what Docker says of it, which may be little."""
    return Image(
        id=str(info["id"]),
        name=containers[0].image if containers else "",
        digests=tuple(info.get("digests") or ()),
        tags=tuple(info.get("tags") or ()),
        created_at=_instant(str(info.get("created_at") or "")),
        size_bytes=info.get("size_bytes"),
        containers=tuple(containers),
    )


def of_ports(ports: Sequence[Published]) -> Iterator[Finding]:
    told = set()
    for one in ports:
        what = _DELICATE.get(one.port.container_port)
        key = (one.container.id, one.port.port)
        if what and one.reach != "host" and key not in told:
            told.add(key)
            where = "on all addresses" if one.reach == "all" else f"at {one.port.address}"
            text = f"{display(one.container.name)} publishes port {one.port.port} {where}; behind it is usually {what}"
            yield Finding(Severity.WARN, "ports", text, one.stack)


def of_images(images: Sequence[Image], now: datetime) -> Iterator[Finding]:
    for one in images:
        age = one.age_days(now)
        if age is not None and age > _OLD_DAYS:
            names = ", ".join(display(container.name) for container in one.containers[:3])
            yield Finding(Severity.INFO, "images", f"{display(one.name)} was built {age} days ago (in use by {names})")


def of_stack(stack: Stack) -> Iterator[Finding]:
    """What discovery complains of; a stack that Compose cannot read is an error."""
    for problem in stack.problems:
        unread = not stack.resolved and problem is stack.problems[0]
        where = f" (service {display(problem.service)})" if problem.service else ""
        yield Finding(Severity.ERROR if unread else Severity.WARN, "compose", f"{problem.message}{where}", stack.name)


def _instant(text: str) -> datetime | None:
    """Docker's RFC 3339 with nanoseconds."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else None
