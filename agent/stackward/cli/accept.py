"""stackward accept: a person says that a stack is meant to be as it is now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackward.core.errors import SettingsError
from stackward.core.model import display
from stackward.core.values import suggest

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rich.console import Console

    from stackward.cli.context import Context


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("stack", metavar="STACK")


def run(arguments: Namespace, context: Context) -> int:
    appliance = context.appliance
    store, name = appliance.store, arguments.stack
    stack = appliance.discovery.stack(name)
    hold = store.holds().get(name)
    if stack is None and hold is None and not store.was_opted_in(name):
        known = [one.name for one in appliance.discovery.stacks]
        raise SettingsError(
            f"there is no stack {display(name)}", hint=suggest(name, known) or "`stackward stacks` names them"
        )
    told = []
    if hold is not None:
        told.append(f"no longer held: {hold.reason}; its older backups may be pruned again")
    if store.was_opted_in(name) and (stack is None or (stack.policy.backup is None and stack.resolved)):
        store.forget_opted_in(name)
        default = appliance.settings.backup_default and stack is not None
        told.append("goes on being backed up by default" if default else "is no longer backed up, as its labels say")
    store.accept(name, appliance.now())
    told = told or [
        "its next backup may be smaller than the last one, by as much as it is, and its next drill may count less"
    ]

    def human(console: Console) -> None:
        for text in told:
            console.print(f"{display(name)}: {text}")

    context.output.show({"stack": display(name), "accepted": told}, human)
    return 0
