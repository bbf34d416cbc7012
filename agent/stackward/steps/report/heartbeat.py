"""The daemon's sign of life: a file whose time it renews."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackward.config import Settings

FILE = "heartbeat"
WATCHER = "watcher-heartbeat"
WATCHER_LIMIT = "watcher-limit"  # the note in the store that says why not everything is watched
LATE = timedelta(seconds=90)  # the daemon renews it every 15 seconds, and may be held up


def touch(settings: Settings, file: str = FILE) -> None:
    (settings.state_dir / file).touch()


def last(settings: Settings, file: str = FILE) -> datetime | None:
    """When the daemon last renewed it; None where it never did."""
    try:
        return datetime.fromtimestamp((settings.state_dir / file).stat().st_mtime, UTC)
    except OSError:
        return None
