"""stackward notify: say something to whoever is told of failures, to see whether it arrives."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from stackward.cli.render import table
from stackward.core.errors import ExitCode, SettingsError
from stackward.core.model import display
from stackward.observe import notify
from stackward.observe.notice import Kind, Message
from stackward.steps.report import delivery
from stackward.tools import logs

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stackward.cli.context import Context

_LOG = logging.getLogger(__name__)
_TRIAL = "This is a trial: messages from Stackward arrive here."


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "text", nargs="?", default=_TRIAL, metavar="TEXT", help="what to say; without it, that it is a trial"
    )
    parser.add_argument("--pending", action="store_true", help="send what waits to be sent, as the daemon does")


def run(arguments: Namespace, context: Context) -> int:
    return _pending(context) if arguments.pending else _trial(arguments.text, context)


def _trial(text: str, context: Context) -> int:
    appliance = context.appliance
    if not appliance.settings.notify_urls:
        raise SettingsError("there is nobody to tell", hint="set STACKWARD_NOTIFY_URLS (docs/monitoring.md)")
    message = Message("a trial", display(text), Kind.INFO)
    addresses = [notify.Address(url) for url in dict.fromkeys(appliance.settings.notify_urls)]
    prefix = f"{appliance.host_name}: "
    told = [(address.service, notify.tell(address, message, title_prefix=prefix)) for address in addresses]
    context.output.show(
        [{"service": service, "told": not why, "why": why} for service, why in told],
        lambda console: console.print(
            table("", ("service", "told", "why not"), [(service, "no" if why else "yes", why) for service, why in told])
        ),
    )
    return ExitCode.FAILED if any(why for _, why in told) else ExitCode.OK


def _pending(context: Context) -> int:
    """One at a time, so that nobody is told twice."""
    logs.configure()
    appliance = context.appliance
    with appliance.locks.hold("notices", what="sending messages"):
        failures = delivery.deliver(appliance.settings, appliance.store, appliance.now())
    for failure in failures:
        _LOG.warning("%s", failure)
    return ExitCode.FAILED if failures else ExitCode.OK
