"""stackward init: proposes a policy per stack, makes the key, prints the recovery sheet."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from stackward.cli.choosing import choose
from stackward.cli.stacks import size_text, sizes_of
from stackward.config import SETTINGS_FILE
from stackward.core.errors import ExitCode, StackwardError
from stackward.core.model import display
from stackward.core.proposal import Proposal, propose
from stackward.steps import override
from stackward.steps.report import recovery_sheet
from stackward.steps.sizes import Size, Sizes
from stackward.tools import age

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rich.console import Console

    from stackward.cli.context import Context
    from stackward.config import Settings
    from stackward.core.model import Stack
    from stackward.wiring import Appliance

KEY = "age.key"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "stacks", nargs="*", metavar="STACK", help="only these; otherwise all that nobody decided about"
    )
    parser.add_argument(
        "--write", action="store_true", help="put the proposals into each stack's compose.override.yaml"
    )
    parser.add_argument("--no-key", action="store_true", help="make no age key")


@dataclass(frozen=True, slots=True)
class _Key:
    """`made` now, or there before; `recipients` are empty where there is no key at all."""

    path: Path | None
    recipients: tuple[str, ...]
    made: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class _Offer:
    stack: Stack
    proposal: Proposal
    total: Size
    written: Path | None = None
    error: str = ""


def run(arguments: Namespace, context: Context) -> int:
    appliance = context.appliance
    settings = appliance.settings
    chosen = choose(appliance.discovery, arguments.stacks)
    if not arguments.stacks:
        chosen = [stack for stack in chosen if stack.policy.backup is None]
    sizes = sizes_of(appliance)
    offers = [_offer(sizes, stack, write=arguments.write) for stack in chosen]
    key = _key(settings, wanted=not arguments.no_key)
    sheet = recovery_sheet.sheet(settings, key.recipients, key.path, _host_name(appliance))

    def human(console: Console) -> None:
        for offer in offers:
            _draw(console, offer)
        if not offers:
            console.print("Every stack is decided." if appliance.discovery.stacks else "No stacks were found.")
        elif not arguments.write:
            console.print("`stackward init --write` puts these blocks into each stack's compose.override.yaml;")
            console.print("no container is recreated for it. Or take the labels over by hand.\n")
        _draw_key(console, settings, key)
        console.print()
        console.print(sheet, end="")

    document = {
        "stacks": [_document(offer) for offer in offers],
        "key": display(key.path) if key.path else None,
        "key_made": key.made,
        "key_error": key.error,
        "recipients": key.recipients,
        "recovery_sheet": sheet,
    }
    context.output.show(document, human)
    failed = key.error or any(offer.error for offer in offers)
    return ExitCode.FAILED if failed else ExitCode.OK


def _host_name(appliance: Appliance) -> str:
    """The host's own name: in a container the system only knows the container's."""
    docker = appliance.docker_or_none
    return str(docker.info().get("Name") or "") if docker is not None else socket.gethostname()


def _offer(sizes: Sizes, stack: Stack, *, write: bool) -> _Offer:
    proposal = propose(stack, {tree: sizes.of(tree.path).bytes for tree in stack.covered_trees})
    total = sizes.total(tree.path for tree in stack.covered_trees)
    if not write:
        return _Offer(stack, proposal, total)
    try:
        return _Offer(stack, proposal, total, override.write(stack, proposal.as_extension()))
    except StackwardError as error:
        return _Offer(stack, proposal, total, error=str(error))


def _key(settings: Settings, *, wanted: bool) -> _Key:
    """The host's key: made only where neither a key nor recipients are there, and never replaced."""
    path = settings.config_dir / KEY
    try:
        if os.path.lexists(path):
            return _Key(path, settings.age_recipients or age.recipients_of(path))
        if settings.age_recipients or not wanted:
            return _Key(None, settings.age_recipients)
        settings.config_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _Key(path, (age.generate_key(path),), made=True)
    except (StackwardError, OSError) as error:
        return _Key(None, settings.age_recipients, error=f"the age key could not be made: {error}")


def _draw(console: Console, offer: _Offer) -> None:
    trees = ", ".join(tree.mount_name for tree in offer.stack.covered_trees)
    count = len(offer.stack.covered_trees)
    text = f"  {size_text(offer.total)} in {count} tree{'' if count == 1 else 's'}" + (f": {trees}" if trees else "")
    console.print(Text.assemble((display(offer.stack.name), "bold"), text))
    for note in offer.proposal.notes:
        console.print(f"  {note}")
    if offer.error:
        console.print(Text(f"  not written: {offer.error}", "red"))
    if offer.written is not None:
        console.print(Text(f"  written to {display(offer.written)}", "green"))
        return
    console.print(Text("  in compose.override.yaml:", "dim"))
    console.print(_indented(offer.proposal.as_extension()))
    console.print(Text("  or as labels:", "dim"))
    console.print(_indented(offer.proposal.as_labels()))
    console.print()


def _draw_key(console: Console, settings: Settings, key: _Key) -> None:
    if key.error:
        console.print(Text(key.error, "red"))
    elif key.made:
        console.print(Text(f"A key was made: {display(key.path or '')}", "green"))
    if key.recipients and not settings.age_recipients:
        console.print("Secrets are backed up as soon as this is set, in .env beside the appliance's compose.yaml")
        console.print(f"or (with quotes round the value) in {display(settings.config_dir / SETTINGS_FILE)}:")
        console.print(f"  STACKWARD_AGE_RECIPIENTS={','.join(key.recipients)}")


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines()).rstrip("\n")


def _document(offer: _Offer) -> dict[str, Any]:
    return {
        "stack": display(offer.stack.name),
        "bytes": offer.total.bytes,
        "complete": offer.total.complete,
        "trees": [tree.mount_name for tree in offer.stack.covered_trees],
        "extension": offer.proposal.as_extension(),
        "labels": offer.proposal.as_labels(),
        "notes": offer.proposal.notes,
        "written": display(offer.written) if offer.written else None,
        "error": offer.error,
    }
