"""`python -m stackward.daemon`: wires the parts, and ends when it is told to."""

from __future__ import annotations

import logging
import signal
import sys
import threading

from stackward import config
from stackward.core.errors import ExitCode, StackwardError
from stackward.daemon.loop import Daemon
from stackward.tools import logs
from stackward.week.lookout import Lookout
from stackward.wiring import build

_LOG = logging.getLogger("stackward.daemon")
_LOOKOUT_SECONDS = 2.0  # it has nothing to put back


def main() -> int:
    logs.configure()
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    try:
        settings = config.from_process()
        logs.keep_in(settings.log_dir)
        appliance = build(settings)
    except StackwardError as error:
        _LOG.error("%s", error)
        return error.exit_code
    _LOG.info("the daemon begins")
    lookout = Lookout(settings, ending)
    lookout.start()
    try:
        Daemon(appliance, ending).run()
    finally:
        appliance.close()
    lookout.join(_LOOKOUT_SECONDS)
    _LOG.info("the daemon ends")
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
