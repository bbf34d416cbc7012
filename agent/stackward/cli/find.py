"""stackward find: in which backups a file is, and how to get it back."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from rich.console import Console

from stackward.cli import results
from stackward.cli.context import Context
from stackward.cli.render import table
from stackward.core.model import JobResult
from stackward.jobs import find
from stackward.runner import exit_code
from stackward.tools.signals import interruptible


def add_arguments(parser: ArgumentParser) -> None:
    parser.description = (
        "Look through every backup. Nothing is locked or changed; a backup that is being made is not seen."
    )
    parser.add_argument("name", metavar="NAME", help="part of a file's or directory's name; or a pattern with * and ?")
    parser.add_argument("--stack", metavar="STACK", help="only in this stack's data")


def run(arguments: Namespace, context: Context) -> int:
    with interruptible(), context.output.progress() as progress:
        result = find.run(
            settings=context.settings,
            name=arguments.name,
            stack=arguments.stack,
            now=context.appliance.now(),
            progress=progress,
        )
    context.output.show(results.document("find", result), lambda console: _draw(console, result))
    return exit_code(result)


def _draw(console: Console, result: JobResult) -> None:
    for reason in result.reasons:
        console.print(reason)
    found = result.details["found"]
    if not found:
        console.print("no backup holds it")
        return
    rows = [
        (
            one["stack"] or "(configuration)",
            one["path"],
            one["backups"][0],
            f"{len(one['backups'])}" + (f", {one['versions']} versions" if (one["versions"] or 0) > 1 else ""),
        )
        for one in found
    ]
    console.print(table("", ("stack", "path", "newest backup", "in all"), rows))
    if result.details["more"]:
        console.print(f"… and {result.details['more']} more: say more of the name")
    console.print(f"\nTo get the first one back: {found[0]['restore']}")
