"""stackward prune: remove the backups that retention no longer keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackward.cli import results
from stackward.runner import exit_code
from stackward.tools.signals import interruptible
from stackward.week import chains

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rich.console import Console

    from stackward.cli.context import Context
    from stackward.core.model import JobResult


def add_arguments(parser: ArgumentParser) -> None:
    parser.description = (
        "Remove what retention (stackward.backup.keep, BACKUP_RETENTION_DAYS) no longer keeps. The last good backup of a"
        " stack stays, and everything of a stack that is held or no longer there."
    )
    parser.add_argument("--dry-run", action="store_true", help="say of every backup whether it stays, and why")
    parser.add_argument("--gone", action="store_true", help="also backups of stacks that are no longer there")
    parser.add_argument("--replaced", action="store_true", help="also what another backup of the day replaced, at once")
    parser.add_argument("--wait", action="store_true", help="wait for who is at work instead of exit code 75")


def run(arguments: Namespace, context: Context) -> int:
    appliance = context.appliance
    flags = {"dry_run": arguments.dry_run, "gone": arguments.gone, "replaced": arguments.replaced}
    step = chains.prune_step(appliance, **flags)
    with interruptible(), context.output.progress() as progress:
        result = appliance.runner.execute(
            step.job,
            step.work,
            resources=step.resources,
            wait=arguments.wait,
            progress=progress,
            dry_run=arguments.dry_run,
        )
    context.output.show(results.document("prune", result), lambda console: draw(console, result))
    return exit_code(result)


def draw(console: Console, result: JobResult) -> None:
    """The result, and what went; of a dry run also why each backup would stay or go."""
    from stackward.cli.render import table

    results.draw(console, "prune", result)
    details = result.details
    if details.get("dry_run"):
        rows = [
            (
                item["artifact"],
                item["stack"],
                "stays" if item["keep"] else "goes",
                "; ".join(item["reasons"]),
            )
            for item in details["items"]
        ]
        console.print(table("", ("backup", "stack", "", "why"), rows) if rows else "there are no backups")
    for removed in details.get("removed", ()):
        console.print(f"  {'would go' if details['dry_run'] else 'gone'}: {removed}")
    if not details.get("removed") and "items" in details:
        console.print("  nothing to remove")
