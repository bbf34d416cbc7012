"""`python -m stackward.watcher`: wires the parts, and ends when it is told to."""

from __future__ import annotations

import logging
import signal
import sys
import threading

from stackward import config
from stackward.core.errors import ExitCode, StackwardError
from stackward.tools import logs
from stackward.watcher.containers import HEALTH, Containers
from stackward.watcher.directories import Directories
from stackward.week import timetable

_LOG = logging.getLogger("stackward.watcher")


def main() -> int:
    logs.configure()
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    try:
        settings = config.from_process()
        logs.keep_in(settings.log_dir)
        directories = Directories(settings, ending)
    except StackwardError as error:
        _LOG.error("%s", error)
        return error.exit_code
    _LOG.info("the watcher begins")
    if any(row.name == HEALTH and row.schedule for row in timetable.planned(settings)):
        Containers(settings, ending).start()
    directories.run()
    _LOG.info("the watcher ends")
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
