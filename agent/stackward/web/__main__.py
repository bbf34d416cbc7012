"""`python -m stackward.web`: the supervised program that answers Prometheus and whoever asks how we are."""

from __future__ import annotations

import logging
import signal
import sys
import threading

from stackward import config
from stackward.core.errors import ExitCode, StackwardError
from stackward.store import open_in
from stackward.tools import logs
from stackward.tools.clock import utc_now
from stackward.web.pages import Pages
from stackward.web.server import Server

_LOG = logging.getLogger("stackward.web")


def main() -> int:
    logs.configure()
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    try:
        settings = config.from_process()
        if settings.listen is None:
            _LOG.info("nothing is served: STACKWARD_LISTEN is off")
            ending.wait()
            return ExitCode.OK
        server = Server(settings.listen, Pages(settings, lambda: open_in(settings.state_dir, utc_now()), utc_now))
    except StackwardError as error:
        _LOG.error("%s", error)
        return error.exit_code
    with server:
        _LOG.info("serving /metrics and /healthz on %s", server.address)
        ending.wait()
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
