"""A message to people, on its way: the store keeps it until somebody was told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Channel(StrEnum):
    NOTIFY = "notify"  # every URL of STACKWARD_NOTIFY_URLS is told
    PING = "ping"  # STACKWARD_PING_URL is fetched; only the newest one counts


class Kind(StrEnum):
    """Of what sort a message is; the words are Apprise's."""

    INFO = "info"
    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Message:
    """`title` is one line; `body` may have several, and says it all without the title."""

    title: str
    body: str
    kind: Kind = Kind.INFO


@dataclass(frozen=True, slots=True)
class Notice:
    """A message that is not told to everybody yet. `told` are those who were, by what `Address.id` calls them."""

    id: int
    channel: Channel
    message: Message
    at: datetime
    tries: int = 0
    told: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Changes:
    """What is wrong now and was not before (key → text), and what was wrong (key → since when) and is fine again."""

    raised: dict[str, str]
    recovered: dict[str, datetime]

    def __bool__(self) -> bool:
        return bool(self.raised or self.recovered)
