"""The doctor: looks for what would stop a backup or a restore, and says what to do about it.

It changes nothing. Each module looks at one side of things and returns findings; what cannot be told is no finding.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackward.config import Settings
    from stackward.core.model import Container
    from stackward.stacks import Discovery
    from stackward.steps.sizes import Sizes
    from stackward.store import Store
    from stackward.tools.docker import Docker
    from stackward.tools.filesystem import Mount


class Severity(StrEnum):
    ERROR = "error"  # a backup or a restore fails, or would not hold what is meant
    WARN = "warn"  # it works, but one mishap away from not
    INFO = "info"  # good to know
    OK = "ok"


@dataclass(frozen=True, slots=True)
class Finding:
    """`advice` is what to do; empty only where nothing needs doing."""

    severity: Severity
    topic: str
    text: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the doctor looks with. `docker` is None where none answers; `own` is the container we run in, if any."""

    settings: Settings
    docker: Docker | None
    discovery: Discovery | None
    store: Store
    sizes: Sizes
    mounts: tuple[Mount, ...]
    own: Container | None
    now: datetime


def error(topic: str, text: str, advice: str) -> Finding:
    return Finding(Severity.ERROR, topic, text, advice)


def warn(topic: str, text: str, advice: str) -> Finding:
    return Finding(Severity.WARN, topic, text, advice)


def info(topic: str, text: str, advice: str = "") -> Finding:
    return Finding(Severity.INFO, topic, text, advice)


def ok(topic: str, text: str) -> Finding:
    return Finding(Severity.OK, topic, text)
