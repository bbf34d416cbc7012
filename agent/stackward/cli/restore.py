"""stackward restore: put back a stack, a path of it, or the configuration; or undo the last time."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from stackward.cli import results
from stackward.cli.context import Context
from stackward.core.errors import SettingsError
from stackward.core.model import JobResult, display
from stackward.jobs import restore, restore_config
from stackward.runner import READS_BACKUPS, Resource, RunContext, exit_code, of_stack
from stackward.steps.restore import restoring
from stackward.tools.signals import interruptible
from stackward.wiring import Appliance

CONFIG = "config"
_SHOWN = 50  # of each list, on a terminal; JSON has more
# What lists of paths in a result are called on a terminal.
_PATHS = {
    "new": "new",
    "overwritten": "overwritten",
    "changed": "changed",
    "left": "left",
    "places": "put back",
    "taken_away": "taken away, since nothing was there before",
    "lost": "kept, but not to be seen now",
}
_CONFIG_RESOURCE = Resource("config")


def add_arguments(parser: ArgumentParser) -> None:
    parser.usage = "stackward restore [options] STACK | STACK:PATH | config [STACK …]"
    parser.description = (
        "STACK puts all its data back: it is stopped for a moment, and started again. STACK:PATH puts back what is missing"
        " of a file or directory, without a stop. `config` puts files of DOCKER_ROOT back. (A stack that is itself called"
        " config: `config:`.) The backup is verified first. What is replaced stays for seven days: --undo."
    )
    parser.add_argument("what", metavar="WHAT", help="STACK, STACK:PATH, or config")
    parser.add_argument("stacks", nargs="*", metavar="STACK", help="with config: only these stacks' directories")
    parser.add_argument("--from", dest="wanted", metavar="DATE", help="a date or a name as `list` has it (the newest)")
    parser.add_argument("--to", type=Path, metavar="DIR", help="lay it down in DIR; nothing of the stack is touched")
    parser.add_argument(
        "--overwrite", action="store_true", help="with PATH: replace what differs, too; with --to: DIR may hold files"
    )
    parser.add_argument("--missing", action="store_true", help="with config: only what is missing")
    parser.add_argument("--secrets", action="store_true", help="with config: the secrets as well")
    parser.add_argument(
        "--unsigned",
        action="store_true",
        help="with config: restore secrets from outside DOCKER_ROOT also where another appliance made the backup",
    )
    parser.add_argument("--identity", type=Path, metavar="FILE", help="the age identity that opens the secrets")
    parser.add_argument("--force", action="store_true", help="although it is damaged, or Docker does not answer")
    parser.add_argument("--undo", action="store_true", help="put back what the last restore of it replaced")
    parser.add_argument("--dry-run", action="store_true", help="show what would change")
    parser.add_argument("--wait", action="store_true", help="wait for who is at work instead of exit code 75")


def run(arguments: Namespace, context: Context) -> int:
    appliance = context.appliance
    with interruptible(), context.output.progress() as progress:
        for message in appliance.recover():
            progress.warn(message)
        job, work, resources = _chosen(arguments, appliance)
        result = appliance.runner.execute(
            job,
            work,
            resources=(*READS_BACKUPS, *resources),
            wait=arguments.wait,
            progress=progress,
            dry_run=arguments.dry_run,
        )
    context.output.show(results.document(job, result), lambda console: draw(console, job, result))
    return exit_code(result)


def _chosen(
    arguments: Namespace, appliance: Appliance
) -> tuple[str, Callable[[RunContext], JobResult], tuple[Resource, ...]]:
    """The job, its work, and what it must have to itself."""
    if arguments.undo:
        _require_undo_by_itself(arguments)
    if arguments.what == CONFIG:
        if arguments.overwrite:
            raise SettingsError(
                "--overwrite is for STACK:PATH", hint="`restore config` replaces what differs; --missing"
            )
        return "restore-config", lambda run: _config(arguments, appliance, run), (_CONFIG_RESOURCE,)
    if arguments.stacks or arguments.secrets or arguments.identity or arguments.missing or arguments.unsigned:
        raise SettingsError("more STACKs, --secrets, --unsigned, --identity and --missing are for `restore config`")
    stack, path = stack_and_path(arguments.what, appliance)
    if arguments.overwrite and not path and arguments.to is None:
        refuse_overwrite(stack)
    if arguments.undo and path:
        raise SettingsError(
            f"--undo takes back all of the last restore of {display(stack)}, not a path of it",
            hint=f"`stackward restore {display(stack)} --undo`; --dry-run shows what that would put back",
        )
    return "restore", lambda run: _stack(arguments, appliance, stack, path, run), (of_stack(stack),)


def _require_undo_by_itself(arguments: Namespace) -> None:
    """An undo refuses what it would not heed."""
    options = ("to", "wanted", "overwrite", "missing", "secrets", "identity")
    given = [f"--{'from' if option == 'wanted' else option}" for option in options if getattr(arguments, option)]
    if given:
        raise SettingsError(
            f"--undo takes back the last restore as it was made: it does not go with {', '.join(given)}",
            hint="`stackward restore WHAT --undo`",
        )
    if arguments.stacks and arguments.what == CONFIG:
        raise SettingsError(
            f"--undo takes back all of the last restore of configuration, not only {', '.join(arguments.stacks)}",
            hint="`stackward restore config --undo`; --dry-run shows what that would put back",
        )


def _config(arguments: Namespace, appliance: Appliance, run: RunContext) -> JobResult:
    if arguments.undo:
        return restore_config.put_back(
            settings=appliance.settings,
            docker=appliance.docker_or_none,
            force=arguments.force,
            now=run.now,
            dry_run=arguments.dry_run,
        )
    request = restore_config.Request(
        wanted=arguments.wanted,
        stacks=tuple(arguments.stacks),
        secrets=arguments.secrets,
        identity=arguments.identity,
        to=arguments.to,
        only_missing=arguments.missing,
        unsigned=arguments.unsigned,
        force=arguments.force,
        dry_run=arguments.dry_run,
    )
    return restore_config.run(
        request,
        settings=appliance.settings,
        undo=appliance.undo,
        now=run.now,
        run_id=run.run_id,
        progress=run.progress,
    )


def _stack(arguments: Namespace, appliance: Appliance, stack: str, path: str | None, run: RunContext) -> JobResult:
    means = restoring.Means(
        appliance.settings, appliance.docker_or_none, appliance.undo, run.now, run.run_id, run.progress
    )
    stacks = appliance.discover().stacks  # whoever waited for a lock sees the containers of now
    if arguments.undo:
        found = next((one for one in stacks if one.name == stack), None)
        if found is None:
            raise SettingsError(f"there is no stack {display(stack)}", hint="`stackward stacks` names them all")
        return restore.undo_last(found, means, dry_run=arguments.dry_run, force=arguments.force)
    request = restore.Request(
        stack,
        path,
        arguments.wanted,
        arguments.to,
        overwrite=arguments.overwrite,
        force=arguments.force,
        dry_run=arguments.dry_run,
    )
    return restore.run(request, means, stacks)


def stack_and_path(what: str, appliance: Appliance) -> tuple[str, str | None]:
    """The stack's name goes up to the first colon, unless a stack is called all of it.

    Raises:
        SettingsError: nothing comes after the colon: all of the stack may not be what was meant.
    """
    stack, colon, path = what.partition(":")
    if not colon or any(one.name == what for one in appliance.discovery.stacks):
        return what, None
    if not path:
        raise SettingsError(
            f"{display(what)} names no path", hint=f"{display(stack)}:PATH; without the colon, all of the stack"
        )
    return stack, path


def refuse_overwrite(stack: str) -> NoReturn:
    """`--overwrite` without a path: all of a stack's data is replaced anyway."""
    raise SettingsError(
        "--overwrite is for STACK:PATH",
        hint=f"without a path all data of {display(stack)} is replaced, whatever differs: leave --overwrite out",
    )


def draw(console: Console, job: str, result: JobResult) -> None:
    results.draw(console, job, result)
    for line in _lines(result):
        console.print(f"  {line}")


def _lines(result: JobResult) -> Iterator[str]:
    details = result.details
    dry_run = bool(details.get("dry_run"))
    if dry_run:
        yield "nothing was changed: this is what would be"
    if "undone" in details:
        when = f"run {details['run']}, {datetime.fromisoformat(details['at']):%Y-%m-%d %H:%M:%S}"
        yield f"{'would take' if dry_run else 'took'} back: {details['undone']} ({when})"
    for tree in details.get("trees", ()):
        counts = f"{tree['new']} new, {tree['changed']} changed, {tree['removed']} removed"
        yield f"{tree['tree']} → {tree['place']}: {counts}"
        yield from (f"  {item}" for item in tree["items"][:_SHOWN])
    if details.get("stop"):
        yield f"would stop and start: {', '.join(details['stop'])}"
    for word, said in _PATHS.items():
        yield from (f"{said}: {path}" for path in (details.get(word) or ())[:_SHOWN])
    if "to" in details:
        yield f"to {details['to']}"
    notes = details.get("not_restored") or details.get("notes") or ()
    yield from ["not restored, or worth knowing:", *(f"  {note}" for note in notes)] if notes else []
    if result.artifacts and not dry_run and "to" not in details and _changed_something(details):
        yield "what was replaced is kept for seven days: --undo puts it back"


def _changed_something(details: Mapping[str, Any]) -> bool:
    """A restore of a whole stack always does; one of files says how many it wrote."""
    counts = [details[word] for word in ("changes", "new_in_all", "changed_in_all") if word in details]
    return not counts or any(counts)
