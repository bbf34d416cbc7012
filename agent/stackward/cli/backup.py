"""stackward backup: now, what is named or everything that is opted in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackward.cli import prune, results
from stackward.cli.choosing import choose, require_opted_in
from stackward.core.errors import SettingsError
from stackward.core.model import display
from stackward.tools.signals import interruptible
from stackward.week import afterwards, chains

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator

    from rich.console import Console

    from stackward.cli.context import Context
    from stackward.core.model import JobResult

# Flags that older cron lines carry: what they ask for is not there yet, and must not seem done.
_NOT_YET = {
    "replicate": "copying backups off the host",
    "replicate_logs": "copying logs off the host",
}


def add_arguments(parser: ArgumentParser) -> None:
    parser.description = (
        "Back up the configuration and the data of every stack that is opted in, or of those named; then remove what"
        " retention no longer keeps, unless stacks are named."
    )
    parser.add_argument("stacks", nargs="*", metavar="STACK", help="only the data of these")
    parser.add_argument("--config", action="store_true", help="the configuration only")
    parser.add_argument("--data", action="store_true", help="the configuration and the data, as without any flag")
    parser.add_argument("--full-scan", action="store_true", help="look at every file's size and time, as on Sundays")
    parser.add_argument("--verify", action="store_true", help="then read again what is new")
    for flag, what in _NOT_YET.items():
        parser.add_argument(f"--{flag.replace('_', '-')}", action="store_true", help=f"{what}: not in this version")
    parser.add_argument("--push-metrics", action="store_true", help="then push metrics to STACKWARD_PUSHGATEWAY_URL")
    parser.add_argument("--send-log", action="store_true", help="then send the outcomes to STACKWARD_GELF_URL")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done")
    parser.add_argument("--wait", action="store_true", help="wait for who is at work instead of exit code 75")


def run(arguments: Namespace, context: Context) -> int:
    for flag, what in _NOT_YET.items():
        if getattr(arguments, flag):
            option = f"--{flag.replace('_', '-')}"
            raise SettingsError(f"{option}: {what} is not in this version", hint=f"leave {option} out")
    appliance = context.appliance
    sent = {"push_metrics": arguments.push_metrics, "send_log": arguments.send_log}
    afterwards.require_targets(appliance, **sent)
    only = tuple(arguments.stacks)
    choose(appliance.discovery, only)
    wanted = chains.Wanted(
        data=arguments.data or not arguments.config or bool(only),
        stacks=only,
        verify="new" if arguments.verify else "",
        prune=not only,
        full_scan=arguments.full_scan,
    )
    if not wanted.data:
        require_opted_in(appliance.discovery)
    with interruptible(), context.output.progress() as progress:
        for message in appliance.recover():
            progress.warn(message)
        result = appliance.runner.chain(
            chains.steps(appliance, wanted, dry_run=arguments.dry_run),
            wait=arguments.wait,
            progress=progress,
            dry_run=arguments.dry_run,
        )
        if not arguments.dry_run:
            for warning in afterwards.report(appliance, result, trigger="cli", **sent):
                progress.warn(warning)
    return results.show_chain(context.output, result, _draw_plan if arguments.dry_run else results.draw)


def _draw_plan(console: Console, job: str, result: JobResult) -> None:
    """What a step would do."""
    if job == "prune":
        prune.draw(console, result)
        return
    results.draw(console, job, result)
    for stack in result.details.get("stacks", ()) if job == "backup-data" else ():
        base = f", unchanged files shared with {stack['base']}" if stack["base"] else ""
        console.print(f"  {stack['stack']} → {result.details['artifact']}{base}")
        for line in _plan_lines(stack):
            console.print(f"    {line}")


def _plan_lines(stack: dict[str, Any]) -> Iterator[str]:
    for tree in stack["trees"]:
        how = f"{tree['how']}: {tree['why']}" if tree["why"] else tree["how"]
        yield f"{tree['path']}{f' → {to}' if (to := tree['to']) else ''}: {how}"
        if tree["from"]:
            yield f"  {tree['from']}"
    for word in ("stop", "pause"):
        if stack[word]:
            yield f"would {word} and let go on: {', '.join(stack[word])} ({stack['why']})"
    if not stack["stop"] and not stack["pause"]:
        yield f"nothing would stand still: {stack['why']}"
    for hook in stack["hooks"]:
        yield f"{hook['when']} hook of {hook['service']}: {display(hook['command'])}"
    for dump in stack["dumps"]:
        path = f" {display(dump['path'])}" if dump["path"] else ""
        yield f"dump of {dump['service']}: {dump['kind']}{path}"
