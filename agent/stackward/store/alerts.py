"""What is wrong and was told, and the messages on their way.

Nobody who works waits for a message: it is written down here, in the transaction that notes why, and the daemon sends it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from stackward.observe.notice import Changes, Channel, Kind, Message, Notice
from stackward.store.database import Database, blob, name_of, stamp

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

# A message that could not be told for so long is old news.
_LIFETIME = timedelta(days=2)
_PENDING = 100
_CHANNELS = frozenset(channel.value for channel in Channel)
# After a failed attempt: soon, since webhooks have hiccups; then less and less often.
_PAUSES = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 60))


@dataclass(frozen=True, slots=True)
class Standing:
    """What fails now within `scope` (key → text), and what is fine; None: everything else is."""

    scope: str
    failing: Mapping[str, str]
    fine: Collection[str] | None = None


class Alerts(Database):
    """Alert on change: a condition that goes on is told once, and once more when it is over."""

    def change_alerts(
        self,
        scope: str,
        failing: Mapping[str, str],
        *,
        fine: Collection[str] | None = None,
        at: datetime,
        compose: Callable[[Changes], Message | None],
    ) -> Changes:
        """Note what fails now within `scope`, and what is fine; a change becomes the message that `compose` makes of it.

        `failing` is key → text. What is in neither stays as it was; where `fine` is None, everything else is fine.
        """
        (changes,) = self.change_several(
            [Standing(scope, failing, fine)], at=at, compose=lambda found: compose(found[0])
        )
        return changes

    def change_several(
        self, standings: Sequence[Standing], *, at: datetime, compose: Callable[[list[Changes]], Message | None]
    ) -> list[Changes]:
        """The same for several scopes at once, of whose changes `compose` makes one message."""
        with self._writing() as connection:
            found = [_change(connection, standing, at) for standing in standings]
            message = compose(found) if any(found) else None
            if message is not None:
                _insert(connection, Channel.NOTIFY, message, at)
        return found

    def alerts(self, scope: str) -> dict[str, str]:
        """What is wrong within `scope` as far as it is known: key → text."""
        rows = self._rows("SELECT key, text FROM alert WHERE scope = ? ORDER BY since", (scope,))
        return {name_of(row["key"]): row["text"] for row in rows}

    def post(self, channel: Channel, message: Message, at: datetime) -> None:
        """Have a message told as soon as may be. A new ping takes the place of one that was not sent yet."""
        with self._writing() as connection:
            if channel is Channel.PING:
                connection.execute("DELETE FROM notice WHERE channel = ?", (channel.value,))
            _insert(connection, channel, message, at)

    def due_notices(self, at: datetime) -> list[Notice]:
        """The messages to be told now, oldest first; not those of a channel that only a newer version knows."""
        rows = self._rows("SELECT * FROM notice WHERE next_at <= ? ORDER BY id", (stamp(at),))
        return [
            Notice(
                id=row["id"],
                channel=Channel(row["channel"]),
                message=Message(row["title"], row["body"], _kind(row["kind"])),
                at=datetime.fromisoformat(row["at"]),
                tries=row["tries"],
                told=frozenset(json.loads(row["told"])),
            )
            for row in rows
            if row["channel"] in _CHANNELS
        ]

    def note_told(self, notice_id: int, address: str) -> None:
        """One of those who are to be told was."""
        with self._writing() as connection:
            row = connection.execute("SELECT told FROM notice WHERE id = ?", (notice_id,)).fetchone()
            if row is not None:
                told = sorted({*json.loads(row["told"]), address})
                connection.execute("UPDATE notice SET told = ? WHERE id = ?", (json.dumps(told), notice_id))

    def put_off(self, notice: Notice, at: datetime) -> None:
        """Not everybody was told: to be tried again later. To be called before the attempt: it may be our last act."""
        pause = _PAUSES[min(notice.tries, len(_PAUSES) - 1)]
        with self._writing() as connection:
            connection.execute(
                "UPDATE notice SET next_at = ?, tries = tries + 1 WHERE id = ?", (stamp(at + pause), notice.id)
            )

    def drop_notice(self, notice_id: int) -> None:
        with self._writing() as connection:
            connection.execute("DELETE FROM notice WHERE id = ?", (notice_id,))

    def drop_old_notices(self, at: datetime) -> int:
        """Forget what nobody could be told of for two days, and all but the newest hundred; returns how many."""
        with self._writing() as connection:
            cursor = connection.execute(
                "DELETE FROM notice WHERE at < ? OR id NOT IN (SELECT id FROM notice ORDER BY id DESC LIMIT ?)",
                (stamp(at - _LIFETIME), _PENDING),
            )
            return cursor.rowcount


def _change(connection: sqlite3.Connection, standing: Standing, at: datetime) -> Changes:
    scope, failing, fine = standing.scope, standing.failing, standing.fine
    rows = connection.execute("SELECT key, since FROM alert WHERE scope = ?", (scope,)).fetchall()
    known = {name_of(row["key"]): datetime.fromisoformat(row["since"]) for row in rows}
    over = {key for key in known if key not in failing and (fine is None or key in fine)}
    for key, text in failing.items():
        connection.execute(
            "INSERT INTO alert (scope, key, text, since) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET text = excluded.text",
            (scope, blob(key), _printable(text), stamp(at)),
        )
    for key in over:
        connection.execute("DELETE FROM alert WHERE scope = ? AND key = ?", (scope, blob(key)))
    return Changes(
        raised={key: text for key, text in failing.items() if key not in known},
        recovered={key: known[key] for key in sorted(over)},
    )


def _insert(connection: sqlite3.Connection, channel: Channel, message: Message, at: datetime) -> None:
    texts = (_printable(message.title), _printable(message.body))
    connection.execute(
        "INSERT INTO notice (channel, kind, title, body, at, next_at) VALUES (?, ?, ?, ?, ?, ?)",
        (channel.value, message.kind.value, *texts, stamp(at), stamp(at)),
    )


def _kind(word: str) -> Kind:
    """A sort of message that only a newer version knows is told as a warning."""
    try:
        return Kind(word)
    except ValueError:
        return Kind.WARNING


def _printable(text: str) -> str:
    """What a job quotes may hold a name that is not UTF-8, which nobody could be sent."""
    return text.encode("utf-8", "backslashreplace").decode()
