"""stackward drill: restore stacks from their backups beside production, boot and probe them, and remove them again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from stackward.cli import results
from stackward.cli.choosing import choose
from stackward.cli.render import outcome_text, table
from stackward.core.errors import ExitCode, SettingsError
from stackward.core.model import display
from stackward.core.units import format_age
from stackward.jobs import drill
from stackward.runner import exit_code
from stackward.tools.signals import interruptible
from stackward.week import chores

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence

    from rich.console import Console

    from stackward.cli.context import Context
    from stackward.core.model import JobResult

JOB = "drill"


def add_arguments(parser: ArgumentParser) -> None:
    parser.description = (
        "Restores each stack from its newest backup into an instance that can reach nothing, waits until it is well, probes it,"
        " and removes it. What was proven is in `status` and `drill --proofs`; of one that fails, the logs are kept."
    )
    parser.add_argument("stacks", nargs="*", metavar="STACK", help="only these (all that are backed up)")
    parser.add_argument("--from", dest="wanted", metavar="DATE", help="a date or a name as `list` has it (the newest)")
    parser.add_argument("--proofs", action="store_true", help="do nothing: show what was proven, and when")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="show which stacks would be tried, from which backups, and whether there is room",
    )
    parser.add_argument(
        "--unsigned",
        action="store_true",
        help="also from a config backup that this appliance did not sign: what it says is run",
    )
    parser.add_argument("--wait", action="store_true", help="wait for who is at work instead of exit code 75")


def run(arguments: Namespace, context: Context) -> int:
    appliance = context.appliance
    choose(appliance.discovery, arguments.stacks)
    if arguments.proofs:
        if arguments.wanted or arguments.dry_run:
            raise SettingsError("--proofs shows what earlier drills proved; it takes neither --from nor --dry-run")
        return _proofs(context, arguments.stacks)
    if arguments.wanted:
        stacks = appliance.discovery.stacks
        drill.require_wanted(appliance.settings, stacks, arguments.stacks, arguments.wanted, appliance.now())
    with interruptible(), context.output.progress() as progress:
        for message in appliance.recover():
            progress.warn(message)
        step = chores.drill_step(
            appliance, arguments.stacks, arguments.wanted, dry_run=arguments.dry_run, unsigned=arguments.unsigned
        )
        result = appliance.runner.execute(
            JOB,
            step.work,
            resources=step.resources,
            wait=arguments.wait,
            progress=progress,
            dry_run=arguments.dry_run,
        )
    context.output.show(results.document(JOB, result), lambda console: _draw(console, result))
    return exit_code(result)


def _proofs(context: Context, names: Sequence[str]) -> int:
    found = [one for name, one in sorted(context.appliance.store.drills().items()) if not names or name in names]
    now = context.appliance.now()

    def human(console: Console) -> None:
        if not found:
            console.print("no drill has been made yet")
            return
        cells = [
            (
                display(one.stack),
                outcome_text(one.outcome) + f" {format_age(one.at, now)}",
                f"{format_age(one.success_at, now)} ({one.success_artifact})" if one.success_at else Text("never"),
                "\n".join((*one.reasons, *one.proofs)),
            )
            for one in found
        ]
        console.print(table("", ("stack", "newest drill", "last proven", "what was seen"), cells))

    document = [
        {
            "stack": display(one.stack),
            "at": one.at.isoformat(),
            "outcome": one.outcome.value,
            "artifact": one.artifact,
            "proofs": list(one.proofs),
            "reasons": list(one.reasons),
            "proven_at": one.success_at.isoformat() if one.success_at else None,
            "proven_artifact": one.success_artifact,
        }
        for one in found
    ]
    context.output.show(document, human)
    return ExitCode.OK


def _draw(console: Console, result: JobResult) -> None:
    results.draw(console, JOB, result)
    for stack, proofs in result.details.get("proofs", {}).items():
        for proof in proofs:
            console.print(f"  {stack}: proven: {proof}")
    for stack, told in result.details.get("foreseen", {}).items():
        console.print(f"  {stack}: {told}")
