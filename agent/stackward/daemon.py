"""`python -m stackward.daemon`: the supervised program that lets runs happen when they are due."""

from __future__ import annotations

import signal
import sys
import threading

from stackward import config
from stackward.core.errors import ExitCode, SettingsError

HEARTBEAT = "heartbeat"
_TICK_SECONDS = 15.0


def main() -> int:
    try:
        settings = config.from_process()
    except SettingsError as error:
        sys.stderr.write(f"stackward: {error}\n")
        return ExitCode.USAGE
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    while not ending.is_set():
        (settings.state_dir / HEARTBEAT).touch()
        ending.wait(_TICK_SECONDS)
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
