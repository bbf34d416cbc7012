"""What the verbs share that run one of the jobs that look after the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackward.cli import results
from stackward.tools.signals import interruptible
from stackward.week import afterwards
from stackward.week.chores import CHORES

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rich.console import Console

    from stackward.cli.context import Context
    from stackward.core.model import JobResult


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="look only: write, remove and remember nothing")
    parser.add_argument("--wait", action="store_true", help="wait for who is at work instead of exit code 75")


def carry_out(job: str, arguments: Namespace, context: Context) -> int:
    """Run it now, as the schedule does; whoever has to know is told."""
    appliance = context.appliance
    with interruptible(), context.output.progress() as progress:
        for message in appliance.recover():
            progress.warn(message)
        step = CHORES[job](appliance, dry_run=arguments.dry_run)
        result = appliance.runner.chain([step], wait=arguments.wait, progress=progress, dry_run=arguments.dry_run)
        if not arguments.dry_run:
            for warning in afterwards.report(appliance, result, trigger="cli", chain=job):
                progress.warn(warning)
    ((_, ended),) = result.steps
    context.output.show(results.document(job, ended), lambda console: _draw(console, job, ended))
    return result.exit_code


def _draw(console: Console, job: str, result: JobResult) -> None:
    results.draw(console, job, result)
    if file := result.details.get("file"):
        console.print(f"  written: {file}")
    told = set(result.reasons)
    for finding in result.details.get("findings", ()):
        who = f"{finding['stack']}: " if finding.get("stack") else ""
        if f"{who}{finding['text']}" not in told:
            console.print(f"  {finding['severity']}: {who}{finding['text']}")
    for item in result.details.get("items", ()):
        console.print(f"  {item['kind']} {item['name']} {'stays' if item['keep'] else 'goes'}: {item['reason']}")
