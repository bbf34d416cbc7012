"""stackward run: a job or a chain of the week, now. The daemon starts its runs this way, each in a process of its own."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stackward.cli import results
from stackward.cli.choosing import require_opted_in
from stackward.runner import CHANGE
from stackward.tools import logs
from stackward.tools.signals import interruptible
from stackward.week import afterwards, chains, retrying

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator

    from stackward.cli.context import Context
    from stackward.core.progress import Progress

_LOG = logging.getLogger(__name__)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "name",
        choices=[*chains.names(), chains.RETRY],
        metavar="JOB",
        help=f"one of {', '.join(chains.names())}; or {chains.RETRY}, what failed and is due to be tried again",
    )
    parser.add_argument("--wait", action="store_true", help="wait for who is at work instead of exit code 75")
    parser.add_argument(
        "--scheduled",
        nargs="?",
        const=chains.SCHEDULED,
        choices=[chains.SCHEDULED, chains.RETRY, CHANGE],
        help="as the daemon does, and what made it do so: waits, logs JSON lines",
    )


def run(arguments: Namespace, context: Context) -> int:
    if arguments.scheduled:
        logs.configure()
    appliance = context.appliance
    if arguments.scheduled:
        logs.keep_in(appliance.settings.log_dir)
    elif arguments.name == "backup-config":
        require_opted_in(appliance.discovery)
    trigger = arguments.scheduled or "cli"
    wait = arguments.wait or bool(arguments.scheduled)
    with interruptible(), _progress(arguments, context) as progress:
        for message in appliance.recover():
            progress.warn(message)
        if arguments.name == chains.RETRY:
            result = retrying.run(appliance, wait=wait, progress=progress)
        else:
            result = chains.run(appliance, arguments.name, wait=wait, trigger=trigger, progress=progress)
        sent = {
            "push_metrics": bool(arguments.scheduled and appliance.settings.pushgateway_url),
            "send_log": bool(arguments.scheduled and appliance.settings.gelf_url),
        }
        for warning in afterwards.report(appliance, result, trigger=trigger, chain=arguments.name, **sent):
            progress.warn(warning)
    if arguments.scheduled:
        return result.exit_code
    return results.show_chain(context.output, result)


@contextmanager
def _progress(arguments: Namespace, context: Context) -> Iterator[Progress]:
    if arguments.scheduled:
        yield logs.LoggedProgress(_LOG)
        return
    with context.output.progress() as progress:
        yield progress
