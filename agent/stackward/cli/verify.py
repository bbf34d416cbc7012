"""stackward verify: read backups again and name what is damaged."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from rich.console import Console

from stackward.cli import results
from stackward.cli.context import Context
from stackward.cli.render import outcome_text, table
from stackward.core.model import JobResult, Outcome, display
from stackward.core.units import format_bytes
from stackward.jobs import verify
from stackward.runner import READS_BACKUPS, RunContext, exit_code
from stackward.tools.signals import interruptible

_SHOWN = 200  # findings per backup on a terminal; JSON has more


def add_arguments(parser: ArgumentParser) -> None:
    parser.description = (
        "Read backups again, all or those named, to their last byte. Every damaged, missing or surplus file is named."
        " Exit code 3: there is damage."
    )
    parser.add_argument("names", nargs="*", metavar="BACKUP", help="only these: names as `list` has them, or dates")
    parser.add_argument("--new", action="store_true", help="only what was not read since it was made")
    parser.add_argument("--wait", action="store_true", help="wait for who is at work instead of exit code 75")


def run(arguments: Namespace, context: Context) -> int:
    appliance = context.appliance

    def work(run: RunContext) -> JobResult:
        return verify.run(
            settings=appliance.settings,
            store=appliance.store,
            names=arguments.names,
            everything=not arguments.new,
            now=run.now,
            progress=run.progress,
        )

    with interruptible(), context.output.progress() as progress:
        result = appliance.runner.execute(
            "verify", work, resources=READS_BACKUPS, wait=arguments.wait, progress=progress
        )
    context.output.show(results.document("verify", result), lambda console: _draw(console, result))
    return exit_code(result)


def _draw(console: Console, result: JobResult) -> None:
    results.draw(console, "verify", result)
    rows = [
        (
            f"  {one['name']}",
            outcome_text(Outcome(one["outcome"])),
            f"{one['files']} files, {format_bytes(one['bytes'])}",
        )
        for one in result.details.get("artifacts", ())
    ]
    if not rows and result.outcome is not Outcome.FAILED:
        console.print("there is nothing to verify")
    if rows:
        console.print(table("", ("  backup", "outcome", "read"), rows))
    for one in result.details.get("artifacts", ()):
        for finding in one["findings"][:_SHOWN]:
            why = f": {finding['why']}" if finding["why"] else ""
            console.print(f"  {display(one['name'])}: {finding['fault']} {finding['path']}{why}")
        if one["damaged"] > _SHOWN:
            console.print(f"  {display(one['name'])}: … and {one['damaged'] - _SHOWN} more")
