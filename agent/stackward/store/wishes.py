"""What somebody wants of the daemon: that it waits, or that it runs a job soon. Kept until it is done, or taken back."""

from __future__ import annotations

from datetime import datetime

from stackward.store.database import Database, stamp

_PAUSE = "paused-until"
_REQUEST = "request "


class Wishes(Database):
    """Notes between the command line, the watcher and the daemon."""

    def pause(self, until: datetime) -> None:
        """Nothing scheduled begins before `until`; what is missed meanwhile is made up for once."""
        self._put(_PAUSE, stamp(until))

    def resume(self) -> None:
        with self._writing() as connection:
            connection.execute("DELETE FROM note WHERE key = ?", (_PAUSE,))

    def paused_until(self, now: datetime) -> datetime | None:
        """None where there is no pause, or it is over."""
        rows = self._rows("SELECT value FROM note WHERE key = ?", (_PAUSE,))
        until = datetime.fromisoformat(rows[0]["value"]) if rows else None
        return until if until is not None and until > now else None

    def request(self, job: str, at: datetime) -> None:
        """Have the job run soon. Who asks twice before it began has it run once."""
        self._put(_REQUEST + job, stamp(at))

    def requests(self) -> dict[str, datetime]:
        """What is wanted → since when."""
        rows = self._rows("SELECT key, value FROM note WHERE key >= ? AND key < ?", (_REQUEST, _REQUEST[:-1] + "!"))
        return {row["key"].removeprefix(_REQUEST): datetime.fromisoformat(row["value"]) for row in rows}

    def fulfil(self, job: str, until: datetime) -> None:
        """The wish is met, unless somebody asked again after `until`."""
        with self._writing() as connection:
            connection.execute("DELETE FROM note WHERE key = ? AND value <= ?", (_REQUEST + job, stamp(until)))

    def _put(self, key: str, value: str) -> None:
        with self._writing() as connection:
            connection.execute("INSERT OR REPLACE INTO note (key, value) VALUES (?, ?)", (key, value))
