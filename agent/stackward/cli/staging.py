"""stackward staging: the staging instances: what they are made of, and starting, stopping and renewing them."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from rich.text import Text

from stackward.cli import results
from stackward.cli.amounts import count
from stackward.cli.choosing import choose
from stackward.cli.render import outcome_text, table
from stackward.core.errors import ExitCode, RefusedError, SettingsError
from stackward.core.model import display
from stackward.core.staging import PROXY, escaped
from stackward.core.units import format_age
from stackward.jobs import staging as job
from stackward.runner import Resource, RunContext, exit_code
from stackward.steps.instance import instances, staging
from stackward.steps.volume import nightly_snapshot
from stackward.tools.signals import interruptible

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from stackward.cli.context import Context
    from stackward.core.model import Container, JobResult, Stack
    from stackward.steps.instance.staging import Plan
    from stackward.wiring import Appliance

JOB = "staging"
RESOURCES = (Resource("staging"), Resource("volume"))
_STARTING = (JOB, f"{JOB}-up")
_LOOKING = ("list", "render", "diff", "logs")
_ACTING = ("up", "down", "refresh")


def add_arguments(parser: ArgumentParser) -> None:
    parser.usage = (
        "stackward staging [options] list | render STACK | diff STACK | logs STACK | up | down | refresh [STACK …]"
    )
    parser.description = (
        "list: every instance and how it is. render: the compose file that an instance is made of. diff: how that differs"
        " from production's. refresh: make `.nightly` anew and start all instances on it, as every night. up, down: start"
        " and stop some or all on the `.nightly` that there is. logs: what its containers say."
    )
    parser.add_argument("action", metavar="ACTION", choices=(*_LOOKING, *_ACTING), help="what to do")
    parser.add_argument("stacks", nargs="*", metavar="STACK", help="whose instance")
    parser.add_argument("--lines", type=count, default=50, help="with logs: how many of each container")
    parser.add_argument("--dry-run", action="store_true", help="with refresh: show what would be started")
    parser.add_argument("--wait", action="store_true", help="wait for who is at work instead of exit code 75")


def run(arguments: Namespace, context: Context) -> int:
    if arguments.action == "refresh" and arguments.stacks:
        raise SettingsError("all instances run on one `.nightly`: `staging refresh` takes no STACK")
    if arguments.dry_run and arguments.action != "refresh":
        raise SettingsError("--dry-run is for `staging refresh`")
    if arguments.action in _ACTING:
        return _act(arguments, context)
    stacks = choose(context.appliance.discovery, arguments.stacks)
    if arguments.action == "list":
        return _list(context, stacks)
    if len(arguments.stacks) != 1:
        raise SettingsError(f"`staging {arguments.action}` needs one STACK")
    (stack,) = stacks
    shown = {"render": _render, "diff": _diff, "logs": _logs}[arguments.action]
    return shown(context, _plan_of(context.appliance, stack), arguments)


def _act(arguments: Namespace, context: Context) -> int:
    appliance = context.appliance
    chosen = choose(appliance.discovery, arguments.stacks)
    if arguments.action == "up" and arguments.stacks:
        _require_staging(appliance, chosen)
    with interruptible(), context.output.progress() as progress:
        for message in appliance.recover():
            progress.warn(message)
        result = appliance.runner.execute(
            JOB if arguments.action == "refresh" else f"{JOB}-{arguments.action}",
            work_of(appliance, arguments.action, arguments.stacks, dry_run=arguments.dry_run),
            resources=RESOURCES,
            wait=arguments.wait,
            progress=progress,
            dry_run=arguments.dry_run,
        )
    context.output.show(results.document(JOB, result), lambda console: _draw_result(console, result))
    return exit_code(result)


def work_of(
    appliance: Appliance, action: str = "refresh", names: Sequence[str] = (), *, dry_run: bool = False
) -> Callable[[RunContext], JobResult]:
    """The job as the runner wants it."""

    def work(run: RunContext) -> JobResult:
        means = job.Means(appliance.settings, appliance.docker_or_none, appliance.undo, run.progress)
        stacks = appliance.discover().stacks  # whoever waited for a lock sees the stacks of now
        if action == "refresh":
            return job.refresh(means, stacks, dry_run=dry_run)
        return (job.up if action == "up" else job.down)(means, stacks, names)

    return work


def _list(context: Context, stacks: Sequence[Stack]) -> int:
    appliance = context.appliance
    docker, now = appliance.docker_or_none, appliance.now()
    plans = staging.plans(appliance.settings, docker, stacks, fresh=True)
    rows = []
    for one in plans:
        containers = instances.containers(docker, one)
        started = [run for job in _STARTING for run in appliance.store.runs(job, one.stack.name, limit=1)]
        last = max(started, key=lambda run: run.started_at, default=None)
        rows.append((one, containers, last))
    data_at = nightly_snapshot.made_at(appliance.settings.volume)

    def human(console: Console) -> None:
        if not rows:
            console.print("no stack has staging on: the label stackward.staging")
            return
        hint = "there is no .nightly yet: `stackward staging refresh` makes it"
        console.print(f"on the data of {format_age(data_at, now)}" if data_at else hint)
        cells: list[Sequence[str | Text]] = []
        for one, containers, last in rows:
            told = [str(refusal) for refusal in one.refusals] or list(last.reasons if last else ())
            ended = outcome_text(last.outcome) if last else Text("never", "dim")
            when = f" {format_age(last.started_at, now)}" if last else ""
            kind = Text("refused", "bold red") if one.refusals else Text("by hand" if one.service else "derived")
            ports = ", ".join(map(str, one.ports))
            cells.append((display(one.stack.name), kind, _state(containers), ports, ended + when, "\n".join(told)))
        console.print(table("", ("stack", "instance", "containers", "ports", "last started", "why"), cells))

    document = [
        {
            **_document(one),
            "containers": [{"name": c.name, "service": c.service, "state": c.state, "health": c.health} for c in found],
            "data_at": data_at.isoformat() if data_at else None,
            "last_outcome": last.outcome.value if last and last.outcome else None,
            "last_at": last.started_at.isoformat() if last else None,
            "last_reasons": list(last.reasons) if last else [],
        }
        for one, found, last in rows
    ]
    context.output.show(document, human)
    return ExitCode.OK


def _state(containers: Sequence[Container]) -> Text:
    """How many run, and which of them are not healthy."""
    running = [one for one in containers if one.state == "running"]
    unwell = [f"{display(one.service)} {one.health}" for one in running if one.health not in ("", "healthy")]
    text = ", ".join([f"{len(running)} of {len(containers)} running", *unwell])
    return Text(text, "bold red" if unwell or len(running) < len(containers) else "")


def _render(context: Context, chosen: Plan, _arguments: Namespace) -> int:
    text = "" if chosen.service else staging.render(chosen)

    def human(console: Console) -> None:
        _draw_refusals(console, chosen)
        console.print(text or f"the instance is the service {chosen.service} of {display(chosen.directory)}")

    context.output.show({**_document(chosen), "compose": text}, human)
    return ExitCode.REFUSED if chosen.refusals else ExitCode.OK


def _diff(context: Context, chosen: Plan, _arguments: Namespace) -> int:
    if chosen.service:
        raise SettingsError("the instance is a service of production's own compose file: there is nothing to compare")
    before = staging.as_yaml(escaped(chosen.stack.raw)).splitlines()
    after = staging.as_yaml(escaped(chosen.model)).splitlines()
    lines = list(difflib.unified_diff(before, after, "production", "staging", lineterm=""))
    colours = {"+": "green", "-": "red"}

    def human(console: Console) -> None:
        _draw_refusals(console, chosen)
        for line in lines:
            console.print(Text(line, colours.get(line[:1], "")))

    context.output.show({**_document(chosen), "diff": "\n".join(lines)}, human)
    return ExitCode.OK


def _logs(context: Context, chosen: Plan, arguments: Namespace) -> int:
    docker = context.appliance.docker_or_none
    if docker is None:
        raise RefusedError("no Docker Engine answers", hint="start Docker")
    found = [one for one in instances.containers(docker, chosen) if one.service != PROXY]
    said = {one.name: docker.logs(one.id, lines=arguments.lines) for one in found}

    def human(console: Console) -> None:
        for name, text in said.items():
            console.print(Text(name, "bold"))
            for line in text.splitlines():
                console.print(f"  {display(line)}")

    context.output.show({"stack": display(chosen.stack.name), "logs": said}, human)
    return ExitCode.OK


def _plan_of(appliance: Appliance, stack: Stack) -> Plan:
    """The stack's instance; also of one whose label is off: so it can be looked at before it is switched on."""
    docker = appliance.docker_or_none
    plans = staging.plans(appliance.settings, docker, appliance.discovery.stacks, fresh=True)
    known = next((one for one in plans if one.stack.name == stack.name), None)
    return known or staging.plan(appliance.settings, docker, stack, staging.own_image(docker), fresh=True)


def _require_staging(appliance: Appliance, stacks: Sequence[Stack]) -> None:
    """Raise where one that was asked for has no instance to be started."""
    plans = staging.plans(appliance.settings, appliance.docker_or_none, appliance.discovery.stacks)
    without = {stack.name for stack in stacks} - {one.stack.name for one in plans}
    if without:
        raise SettingsError(
            f"no staging instance: {', '.join(map(display, sorted(without)))}",
            hint='label one of its services with stackward.staging: "true"; `staging render STACK` shows what it would be',
        )


def _document(one: Plan) -> dict[str, Any]:
    return {
        "stack": display(one.stack.name),
        "project": one.project,
        "kind": "refused" if one.refusals else "by hand" if one.service else "derived",
        "refused": [str(refusal) for refusal in one.refusals],
        "notes": list(one.notes),
        "ports": [str(port) for port in one.ports],
    }


def _draw_refusals(console: Console, chosen: Plan) -> None:
    for refusal in chosen.refusals:
        console.print(Text(f"refused: {refusal}", "bold red"))


def _draw_result(console: Console, result: JobResult) -> None:
    results.draw(console, JOB, result)
    for name, planned in result.details.get("instances", {}).items():
        console.print(Text(name, "bold"))
        for refusal in planned["refused"]:
            console.print(Text(f"  refused: {refusal}", "bold red"))
        for note in planned["notes"]:
            console.print(f"  {note}")
