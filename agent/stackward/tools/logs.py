"""Log lines as JSON on standard output, one object a line, for whoever collects the container's log."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

# What `logging` puts on every record; all else came through `extra` and is part of the line.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure() -> None:
    """All records of the process from INFO up go to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("urllib3").setLevel(logging.ERROR)


class JsonLines(logging.Formatter):
    """`time` (UTC), `level`, `message`, then what the caller added, then the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        line.update((key, value) for key, value in vars(record).items() if key not in _STANDARD)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class LoggedProgress:
    """Progress as log lines: each step and each warning, no counts."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log

    def step(self, text: str, *, total_bytes: int | None = None, total_files: int | None = None) -> None:
        extra = {"bytes": total_bytes, "files": total_files}
        self._log.info("%s", text, extra={key: value for key, value in extra.items() if value is not None})

    def advance(self, *, byte_count: int = 0, files: int = 0) -> None:
        pass

    def warn(self, text: str) -> None:
        self._log.warning("%s", text)
