"""Messages to people, through Apprise: each URL is a service and somebody's address at it.

Apprise is large and comes with plugins for a hundred services: it is imported when something is sent, by a process that
does nothing else.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackward.observe.notice import Message


@dataclass(frozen=True, slots=True)
class Address:
    """A URL holds passwords: nothing but `id` and `service` may be kept or shown."""

    url: str

    @property
    def id(self) -> str:
        """Tells it from other addresses, and nothing about it."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:16]

    @property
    def service(self) -> str:
        """The URL's scheme, such as `mailto` or `ntfys`."""
        return self.url.partition("://")[0]


def tell(address: Address, message: Message, *, title_prefix: str = "") -> str:
    """Returns "" once the service has taken the message, else why it did not.

    A service that answers, however slowly, is waited for: whoever calls sets the limit.
    """
    import apprise  # noqa: PLC0415 - see above

    service = apprise.Apprise.instantiate(address.url, suppress_exceptions=True)
    if service is None:
        return "this is no URL that Apprise knows"
    with apprise.LogCapture(level=logging.WARNING) as log:  # type: ignore[no-untyped-call]
        taken = service.notify(
            title=f"{title_prefix}{message.title}",
            body=message.body,
            notify_type=apprise.NotifyType(message.kind.value),
            body_format=apprise.NotifyFormat.TEXT,
        )
        said = log.getvalue().strip() if log is not None else ""
    if taken:
        return ""
    return said.splitlines()[-1] if said else "it did not take the message"
