"""Log lines as JSON, one object a line: on standard output for whoever collects the container's log, and in a file."""

from __future__ import annotations

import json
import logging
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

DIRECTORY = "ct-controller"
FILE = "stackward.log"
# What `logging` puts on every record; all else came through `extra` and is part of the line.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure() -> None:
    """All records of the process from INFO up go to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("urllib3").setLevel(logging.ERROR)


def keep_in(directory: Path) -> None:
    """The same lines go to `ct-controller/stackward.log` below the directory of logs, as far as it takes them."""
    handler = LogFile(directory / DIRECTORY / FILE)
    handler.setFormatter(JsonLines())
    logging.getLogger().addHandler(handler)


class LogFile(logging.Handler):
    """A file that several processes append to, a whole line at once, and that others may move away and compress.

    A disk that is full, or gone, costs lines and nothing else: whoever logs never learns of it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._descriptor: int | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        except Exception:  # noqa: BLE001 - as every handler of the standard library: a bad record is no reason to fail
            self.handleError(record)
            return
        with suppress(OSError):
            os.write(self._opened(), line)

    def close(self) -> None:
        self._let_go()
        super().close()

    def _opened(self) -> int:
        """The file of that name as it is now: opened again once it was moved away."""
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            there = None
            self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._descriptor is not None and there is not None and os.path.samestat(there, os.fstat(self._descriptor)):
            return self._descriptor
        self._let_go()
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        return self._descriptor

    def _let_go(self) -> None:
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None


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
