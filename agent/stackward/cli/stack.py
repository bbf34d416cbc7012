"""stackward stack: convert moves a stack's data to the Btrfs volume."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

from rich.console import Console

from stackward.cli import results
from stackward.cli.context import Context
from stackward.core.errors import SettingsError
from stackward.core.model import JobResult
from stackward.core.units import format_bytes
from stackward.jobs import convert
from stackward.runner import READS_BACKUPS, Resource, RunContext, exit_code, of_stack
from stackward.steps.restore.restoring import Means
from stackward.tools.signals import interruptible


def add_arguments(parser: ArgumentParser) -> None:
    parser.usage = "stackward stack [options] convert STACK [TREE]"
    parser.description = (
        "Move a stack's trees, or one of them, to subvolumes of the Btrfs volume, and leave links in their places. The"
        " copy is made while the stack runs; then it stands still until all is compared and the links are there. What was"
        " there is kept for seven days: --undo."
    )
    parser.add_argument("action", metavar="ACTION", choices=("convert",), help="convert")
    parser.add_argument("stack", metavar="STACK")
    parser.add_argument("tree", metavar="TREE", nargs="?", help="a tree's name, as `stackward stacks` has it (all)")
    parser.add_argument("--undo", action="store_true", help="put back what the last move replaced")
    parser.add_argument("--dry-run", action="store_true", help="say what would move, and why the rest stays")
    parser.add_argument("--wait", action="store_true", help="wait for who is at work instead of exit code 75")


def run(arguments: Namespace, context: Context) -> int:
    if arguments.undo and (arguments.dry_run or arguments.tree):
        raise SettingsError("--undo takes the stack alone", hint="stackward stack --help")
    appliance = context.appliance

    def work(run: RunContext) -> JobResult:
        means = Means(appliance.settings, appliance.docker_or_none, appliance.undo, run.now, run.run_id, run.progress)
        stacks = appliance.discover().stacks
        if arguments.undo:
            return convert.undo_last(arguments.stack, means, stacks)
        request = convert.Request(arguments.stack, arguments.tree, dry_run=arguments.dry_run)
        return convert.run(request, means, stacks)

    with interruptible(), context.output.progress() as progress:
        for message in appliance.recover():
            progress.warn(message)
        result = appliance.runner.execute(
            "convert",
            work,
            resources=(*READS_BACKUPS, Resource("volume"), of_stack(arguments.stack)),
            wait=arguments.wait,
            progress=progress,
            dry_run=arguments.dry_run,
        )
    context.output.show(results.document("convert", result), lambda console: _draw(console, result))
    return exit_code(result)


def _draw(console: Console, result: JobResult) -> None:
    results.draw(console, "convert", result)
    for line in _lines(result):
        console.print(f"  {line}")


def _lines(result: JobResult) -> Iterator[str]:
    details = result.details
    verb = "would move" if details.get("dry_run") else "moved"
    for one in details.get("moves", ()):
        yield f"{verb}: {one['from']} → {one['to']} ({format_bytes(one['bytes'])})"
    for one in details.get("proofs", ()):
        yield f"compared: {one['tree']}, {one['paths']} paths, SHA-256 of all {one['sha256']}"
    for name in details.get("done", ()):
        yield f"{name}: a subvolume already"
    for one in details.get("staying", ()):
        yield f"{one['tree']} stays: {one['why']}"
    for place in details.get("places", ()):
        yield f"put back: {place}"
    for place in details.get("left", ()):
        yield f"what changed since is left at {place}"
    for one in details.get("remade", ()):
        how = "" if one["started"] else ", and does not start it: it did not run"
        yield f"Compose makes {one['container']} again{how}; its log, and what it wrote outside its volumes, goes"
    yield from details.get("notes", ())
    if details.get("proofs"):
        yield "what was there is kept for seven days: --undo puts it back"
