"""Messages on their way are told: each address in a thread of its own, all within one time limit.

An address that hangs holds up neither the others nor us; what it did not take is tried again later, what it took is not
sent to it twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stackward.core.errors import StackwardError
from stackward.observe import notify
from stackward.observe.notice import Channel, Notice
from stackward.observe.ping import ping

if TYPE_CHECKING:
    from datetime import datetime

    from stackward.config import Settings
    from stackward.store import Store

LIMIT_SECONDS = 40.0
HOST_NOTE = "host-name"
PING_FAILED = "fail"  # the body of a ping that tells of a failure
_SLOW = "it did not answer in time"


@dataclass(frozen=True, slots=True)
class _Receiver:
    """Somebody to be told: `tell` returns "" or why it did not work. `told` grows as notices are taken."""

    id: str
    name: str
    notices: Sequence[Notice]
    tell: Callable[[Notice], str]
    told: set[int] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)

    def tell_all(self, note: Callable[[int, str], None]) -> None:
        """In order; after a failure the rest waits for the next time."""
        for notice in self.notices:
            if why := self.tell(notice):
                self.failures.append(why)
                return
            try:
                note(notice.id, self.id)
            except StackwardError as error:  # the time was up and the store is closed: told again is better than never
                self.failures.append(error.message)
                return
            self.told.add(notice.id)


def deliver(settings: Settings, store: Store, now: datetime, *, limit_seconds: float = LIMIT_SECONDS) -> list[str]:
    """Tell everybody what is due; returns, in words, who could not be told. Messages that nobody wants are dropped."""
    store.drop_old_notices(now)
    due = store.due_notices(now)
    for notice in due:
        store.put_off(notice, now)
    receivers = [*_people(settings, store, due), *_pinged(settings, due)]
    threads = [threading.Thread(target=one.tell_all, args=(store.note_told,), daemon=True) for one in receivers]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + limit_seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    for notice in due:
        if all(notice not in one.notices or notice.id in one.told for one in receivers):
            store.drop_notice(notice.id)
    return [
        f"{one.name} could not be told: {one.failures[0] if one.failures else _SLOW}"
        for one in receivers
        if len(one.told) < len(one.notices)
    ]


def _people(settings: Settings, store: Store, due: Sequence[Notice]) -> list[_Receiver]:
    host = store.note(HOST_NOTE)
    prefix = f"{host}: " if host else ""
    found = []
    for address in map(notify.Address, dict.fromkeys(settings.notify_urls)):
        notices = [one for one in due if one.channel is Channel.NOTIFY and address.id not in one.told]

        def tell(notice: Notice, address: notify.Address = address) -> str:
            return notify.tell(address, notice.message, title_prefix=prefix)

        found.append(_Receiver(address.id, f"a {address.service} address", notices, tell))
    return found


def _pinged(settings: Settings, due: Sequence[Notice]) -> list[_Receiver]:
    if not settings.ping_url:
        return []
    notices = [one for one in due if one.channel is Channel.PING]

    def tell(notice: Notice) -> str:
        return ping(settings.ping_url, failed=notice.message.body == PING_FAILED)

    return [_Receiver("ping", "STACKWARD_PING_URL", notices, tell)]
