"""stackward run: a chain of the week, now. The daemon starts its runs this way, each in a process of its own."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stackward import afterwards, chains
from stackward.cli import results
from stackward.core.model import JobResult, Outcome
from stackward.runner import ChainResult
from stackward.tools import logs
from stackward.tools.signals import interruptible

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator

    from stackward.cli.context import Context
    from stackward.core.progress import Progress
    from stackward.runner import RunContext
    from stackward.wiring import Appliance

_LOG = logging.getLogger(__name__)


def add_arguments(parser: ArgumentParser) -> None:
    names = [chain.name for chain in chains.WEEK]
    parser.add_argument("chain", choices=[*names, chains.RETRY], help="which; `stackward jobs` says what each does")
    parser.add_argument("--wait", action="store_true", help="wait for who is at work instead of exit code 75")
    parser.add_argument("--scheduled", action="store_true", help="as the schedule does: waits, logs JSON lines")


def run(arguments: Namespace, context: Context) -> int:
    if arguments.scheduled:
        logs.configure()
    appliance = context.appliance
    trigger = (chains.RETRY if arguments.chain == chains.RETRY else chains.SCHEDULED) if arguments.scheduled else "cli"
    with interruptible(), _progress(arguments, context) as progress:
        for message in appliance.recover():
            progress.warn(message)
        result = _chain(arguments, appliance, trigger, progress)
        sent = {
            "push_metrics": arguments.scheduled and bool(appliance.settings.pushgateway_url),
            "send_log": arguments.scheduled and bool(appliance.settings.gelf_url),
        }
        for warning in afterwards.report(appliance, result, trigger=trigger, chain=arguments.chain, **sent):
            progress.warn(warning)
    if arguments.scheduled:
        return result.exit_code
    return results.show_chain(context.output, result)


def _chain(arguments: Namespace, appliance: Appliance, trigger: str, progress: Progress) -> ChainResult:
    """Run it, and record under the chain's own name that it ran: that is what the schedule goes by."""
    wait = arguments.wait or arguments.scheduled
    if arguments.chain == chains.RETRY:
        wanted = chains.due_retries(appliance.store, appliance.now()).wanted
        return appliance.runner.chain(chains.steps(appliance, wanted), wait=wait, progress=progress, trigger=trigger)
    chain = chains.named(arguments.chain)
    ended: list[ChainResult] = []

    def work(_context: RunContext) -> JobResult:
        if not any(stack.opted_in for stack in appliance.discovery.stacks):
            return JobResult(Outcome.SKIPPED, ("no stack is opted in: run `stackward init`",))
        steps = chains.steps(appliance, chain.wanted)
        result = appliance.runner.chain(steps, wait=wait, progress=progress, trigger=trigger)
        ended.append(result)
        reasons = tuple(f"{job}: {step.outcome}" for job, step in result.steps if step.outcome is not Outcome.OK)
        return JobResult(result.outcome, reasons, exit_code=result.exit_code)

    whole = appliance.runner.execute(chain.name, work, wait=wait, progress=progress, trigger=trigger)
    return ended[0] if ended else ChainResult(((chain.name, whole),))


@contextmanager
def _progress(arguments: Namespace, context: Context) -> Iterator[Progress]:
    if arguments.scheduled:
        yield logs.LoggedProgress(_LOG)
        return
    with context.output.progress() as progress:
        yield progress
