"""stackward host: stacks through the host's systemd, and what the host says of itself."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from stackward.cli.choosing import choose
from stackward.cli.render import table
from stackward.core.errors import ExitCode, SettingsError, StackwardError
from stackward.core.model import display
from stackward.core.unit_names import stack_unit
from stackward.core.units import format_age, format_bytes
from stackward.runner import of_stack
from stackward.stacks import places
from stackward.steps.lifecycle import Act, Done, carry_out
from stackward.tools import filesystem
from stackward.tools.host import Bridge, BridgeError, HostFacts

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator

    from rich.console import Console

    from stackward.cli.context import Context
    from stackward.core.model import Stack
    from stackward.wiring import Appliance

_WITHOUT_STACK = ("ping", "facts")
_ACTIONS = (*_WITHOUT_STACK, "show", *(act.value for act in Act))


def add_arguments(parser: ArgumentParser) -> None:
    parser.usage = "stackward host [options] ping | facts | show STACK | start STACK | stop STACK | restart STACK"
    parser.description = (
        "Stacks are started and stopped through their systemd units (host-units/install puts them on the host). Where the"
        " host bridge does not answer, `docker compose` does it, and says so."
    )
    parser.add_argument("action", metavar="ACTION", choices=_ACTIONS, help="ping, facts, show, start, stop or restart")
    parser.add_argument("stack", metavar="STACK", nargs="?", help="with show, start, stop and restart")
    parser.add_argument(
        "--wait", action="store_true", help="wait for who is at work on the stack instead of exit code 75"
    )


def run(arguments: Namespace, context: Context) -> int:
    """0: done; 1: it failed, or the bridge does not answer to ping, facts or show."""
    if (arguments.stack is None) != (arguments.action in _WITHOUT_STACK):
        wanted = "takes no STACK" if arguments.stack else "needs a STACK"
        raise SettingsError(f"`host {arguments.action}` {wanted}", hint="stackward host --help")
    bridge = Bridge(context.settings.run_dir)
    if arguments.action == "ping":
        return _ping(bridge, context)
    if arguments.action == "facts":
        return _facts(bridge, context)
    (stack,) = choose(context.appliance.discovery, [arguments.stack])
    if arguments.action == "show":
        return _show(bridge, stack, context)
    return _act(Act(arguments.action), bridge, stack, context, wait=arguments.wait)


def _ping(bridge: Bridge, context: Context) -> int:
    info = bridge.ping()

    def human(console: Console) -> None:
        compose = f"Compose {info.compose}" if info.compose else "no Compose"
        console.print(f"the host bridge answers: stacks in {display(info.docker_root)}, {compose}")

    context.output.show(asdict(info), human)
    return ExitCode.OK


def _show(bridge: Bridge, stack: Stack, context: Context) -> int:
    state = bridge.show(stack_unit(stack.name))
    now = context.appliance.now()

    def human(console: Console) -> None:
        since = f" since {format_age(state.changed_at, now)}" if state.changed_at else ""
        console.print(f"{display(stack.name)}: {state.active} ({state.sub}){since}, {state.enabled or state.load}")
        console.print(f"  unit: {state.name}, last result: {state.result}")

    context.output.show({"stack": display(stack.name), **asdict(state)}, human)
    return ExitCode.OK


def _act(act: Act, bridge: Bridge, stack: Stack, context: Context, *, wait: bool) -> int:
    appliance = context.appliance
    document: dict[str, Any] = {"stack": display(stack.name), "action": act.value}
    done: Done | None = None
    failure: StackwardError | None = None
    with appliance.locks.hold(of_stack(stack.name).name, wait=wait, what=f"host {act}"):
        try:
            done = carry_out(
                act, stack, bridge=bridge, docker=appliance.docker_or_none, is_own=_is_own(stack, appliance)
            )
        except BridgeError as error:
            failure = error
            document |= {"error": error.message, "said": [display(line) for line in error.lines]}
    document |= asdict(done) if done else {}

    def human(console: Console) -> None:
        if done is not None:
            for note in done.notes:
                console.print(f"note: {note}")
            console.print(f"{display(stack.name)}: {act} through {done.through}: {done.state}")
            return
        for line in document["said"]:
            console.print(f"  {line}")

    context.output.show(document, human)
    if failure is not None:
        raise failure
    return ExitCode.OK


def _is_own(stack: Stack, appliance: Appliance) -> bool:
    own = places.own_container(appliance.docker_or_none, filesystem.mounts())
    return own is not None and own.project == stack.project


def _facts(bridge: Bridge, context: Context) -> int:
    facts = bridge.facts()
    context.output.show(asdict(facts), lambda console: _draw_facts(console, facts))
    return ExitCode.OK


def _draw_facts(console: Console, facts: HostFacts) -> None:
    console.print(f"failed units: {', '.join(facts.failed_units) or 'none'}\n")
    rows = [(one.protocol, one.address, str(one.port), ", ".join(one.programs)) for one in facts.listeners]
    console.print(table("who listens", ("", "address", "port", "program"), rows))
    console.print()
    console.print(table("disks", ("disk", "size", "model", "health"), list(_disk_rows(facts))))
    for program in facts.missing:
        console.print(f"the host has no {program}; install it there to see more")


def _disk_rows(facts: HostFacts) -> Iterator[tuple[str, str, str, str]]:
    for disk in facts.disks:
        if disk.get("type") != "disk":
            continue
        path = str(disk.get("path", ""))
        passed = facts.smart.get(path, {}).get("smart_status", {}).get("passed")
        health = {True: "good", False: "FAILING"}.get(passed, "not told")
        yield display(path), format_bytes(int(disk.get("size") or 0)), display(str(disk.get("model") or "")), health
