"""stackward snapshot: snapshots of the Btrfs volume: make, list, compare, restore from, delete."""

from __future__ import annotations

import base64
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any

from rich.console import Console

from stackward.cli import results
from stackward.cli.context import Context
from stackward.cli.render import table
from stackward.cli.restore import draw, refuse_overwrite, stack_and_path
from stackward.core.errors import ExitCode, SettingsError
from stackward.core.model import JobResult, display
from stackward.core.units import format_age
from stackward.jobs import restore_snapshot, snapshot
from stackward.runner import Resource, RunContext, exit_code, of_stack
from stackward.steps.restore.restoring import Means
from stackward.steps.volume import snapshot_diff, snapshots
from stackward.tools.signals import interruptible
from stackward.wiring import Appliance

VOLUME = Resource("volume")


def add_arguments(parser: ArgumentParser) -> None:
    parser.usage = (
        "stackward snapshot create [LABEL] | list | diff NAME [NAME] | restore NAME STACK[:PATH] | delete NAME…"
    )
    parser.description = (
        "Read-only snapshots of the Btrfs volume, with all subvolumes nested in it. NAME is a snapshot's name, its label,"
        " or a date: then the newest of that day (to be deleted, it must be the only one)."
        " One with a label stays until it is deleted; the others go by"
        " STACKWARD_SNAPSHOT_KEEP. diff says what changed from one to the other, or to now. restore"
        " stops the stack, puts back all its data on the volume or one tree, and starts it; a PATH within a tree is put"
        " back without a stop. What is replaced stays for seven days: `stackward restore STACK --undo`."
    )
    parser.add_argument("action", metavar="ACTION", choices=_ACTIONS, help=f"{', '.join(_ACTIONS)}")
    parser.add_argument("names", nargs="*", metavar="NAME", help="as the action needs them")
    parser.add_argument("--overwrite", action="store_true", help="with restore of a PATH: replace what differs, too")
    parser.add_argument("--force", action="store_true", help="with restore: although Docker does not answer")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done")
    parser.add_argument("--wait", action="store_true", help="wait for who is at work instead of exit code 75")


def run(arguments: Namespace, context: Context) -> int:
    return _ACTIONS[arguments.action](arguments, context)


def _create(arguments: Namespace, context: Context) -> int:
    label = _at_most_one(arguments)
    appliance = context.appliance
    if arguments.dry_run:
        raise SettingsError("`snapshot create` has no --dry-run")

    def work(run: RunContext) -> JobResult:
        return snapshot.create(settings=appliance.settings, now=run.now, label=label)

    return _executed("snapshot-create", work, arguments, context)


def _list(arguments: Namespace, context: Context) -> int:
    _at_most_none(arguments)
    settings, now = context.settings, context.appliance.now()
    found = snapshots.listed(settings.volume, settings.zone)
    decisions = {one.item.key: one for one in snapshots.plan(found, settings.snapshot_keep, now)}
    rows = [
        {
            "name": one.name,
            "when": one.when.isoformat(),
            "label": one.label,
            "path": str(one.path),
            "keep": decisions[one.name].keep,
            "reasons": list(decisions[one.name].reasons),
        }
        for one in reversed(found)
    ]

    def human(console: Console) -> None:
        if not rows:
            console.print(f"there are no snapshots{_why_not(context.appliance)}")
            return
        drawn = [
            (
                str(row["name"]),
                format_age(one.when, now),
                "stays" if row["keep"] else "goes next",
                "; ".join(decisions[one.name].reasons),
            )
            for row, one in zip(rows, reversed(found), strict=True)
        ]
        console.print(table("", ("snapshot", "made", "", "why"), drawn))

    context.output.show({"volume": str(settings.volume), "snapshots": rows}, human)
    return ExitCode.OK


def _delete(arguments: Namespace, context: Context) -> int:
    if not arguments.names:
        raise SettingsError("`snapshot delete` needs the name of a snapshot", hint="stackward snapshot list")
    appliance = context.appliance

    def work(run: RunContext) -> JobResult:
        return snapshot.delete(
            settings=appliance.settings,
            docker=appliance.docker_or_none,
            wanted=arguments.names,
            progress=run.progress,
            dry_run=arguments.dry_run,
        )

    return _executed("snapshot-delete", work, arguments, context)


def _diff(arguments: Namespace, context: Context) -> int:
    if not 1 <= len(arguments.names) <= 2:
        raise SettingsError("`snapshot diff` needs one snapshot or two", hint="stackward snapshot list")
    settings = context.settings
    known = snapshots.listed(settings.volume, settings.zone)
    old, *others = [snapshots.choose(known, name) for name in arguments.names]
    if others:
        diff = snapshot_diff.between(old.path, others[0].path)
    else:
        with (
            context.appliance.locks.hold(VOLUME.name, what="snapshot diff", wait=arguments.wait),
            snapshots.passing(settings.volume, settings.snapshot_skip) as now,
        ):
            diff = snapshot_diff.between(old.path, now)
    document = {
        "from": old.name,
        "to": others[0].name if others else "",
        "created": [_path(path) for path in diff.created],
        "changed": [_path(path) for path in diff.changed],
        "renamed": [{"from": _path(before), "to": _path(after)} for before, after in diff.renamed],
        "removed": [_path(path) for path in diff.removed],
    }

    def human(console: Console) -> None:
        for mark, paths in (("+", diff.created), ("~", diff.changed), ("-", diff.removed)):
            for path in paths:
                console.print(f"{mark} {display(path) or '.'}", soft_wrap=True)
        for before, after in diff.renamed:
            console.print(f"> {display(before)} → {display(after)}", soft_wrap=True)
        console.print(f"{diff.count} differences between {old.name} and {others[0].name if others else 'now'}")

    context.output.show(document, human)
    return ExitCode.OK


def _restore(arguments: Namespace, context: Context) -> int:
    if len(arguments.names) != 2:
        raise SettingsError("`snapshot restore` needs a snapshot and a stack", hint="stackward snapshot --help")
    wanted, what = arguments.names
    appliance = context.appliance
    stack, path = stack_and_path(what, appliance)
    if arguments.overwrite and path is None:
        refuse_overwrite(stack)

    def work(run: RunContext) -> JobResult:
        request = restore_snapshot.Request(
            wanted, stack, path, overwrite=arguments.overwrite, force=arguments.force, dry_run=arguments.dry_run
        )
        means = Means(appliance.settings, appliance.docker_or_none, appliance.undo, run.now, run.run_id, run.progress)
        return restore_snapshot.run(request, means, appliance.discover().stacks)

    return _executed("restore-snapshot", work, arguments, context, of_stack(stack))


def _path(path: bytes) -> dict[str, str]:
    """A path for programs: as people read it and, where that is not it to the byte, its bytes in base64."""
    shown = display(path) or "."
    exact = {} if os.fsencode(shown) == path or not path else {"base64": base64.b64encode(path).decode("ascii")}
    return {"path": shown, **exact}


_ACTIONS: dict[str, Callable[[Namespace, Context], int]] = {
    "create": _create,
    "list": _list,
    "diff": _diff,
    "restore": _restore,
    "delete": _delete,
}


def _executed(
    job: str,
    work: Callable[[RunContext], JobResult],
    arguments: Namespace,
    context: Context,
    *more: Resource,
) -> int:
    appliance = context.appliance
    with interruptible(), context.output.progress() as progress:
        for message in appliance.recover():
            progress.warn(message)
        result = appliance.runner.execute(
            job,
            work,
            resources=(VOLUME, *more),
            wait=arguments.wait,
            progress=progress,
            dry_run=arguments.dry_run,
        )
    draw_result = draw if job == "restore-snapshot" else _draw
    context.output.show(results.document(job, result), lambda console: draw_result(console, job, result))
    return exit_code(result)


def _draw(console: Console, job: str, result: JobResult) -> None:
    results.draw(console, job, result)
    details: dict[str, Any] = result.details
    for removed in details.get("removed", ()):
        console.print(f"  {'would go' if details.get('dry_run') else 'gone'}: {removed}")


def _why_not(appliance: Appliance) -> str:
    why = snapshots.usable(appliance.settings.volume)
    return f", and none can be made: {why}" if why else ": `stackward snapshot create`"


def _at_most_one(arguments: Namespace) -> str:
    if len(arguments.names) > 1:
        raise SettingsError(f"`snapshot {arguments.action}` takes one name", hint="stackward snapshot --help")
    return str(arguments.names[0]) if arguments.names else ""


def _at_most_none(arguments: Namespace) -> None:
    if arguments.names:
        raise SettingsError(f"`snapshot {arguments.action}` takes no name", hint="stackward snapshot --help")
