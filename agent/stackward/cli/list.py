"""stackward list: the backups there are."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from stackward.cli.context import Context
from stackward.cli.render import STYLES, table
from stackward.core.artifacts import ArtifactKind
from stackward.core.model import display
from stackward.core.units import format_age, format_bytes
from stackward.steps import catalog
from stackward.steps.catalog import Artifact
from stackward.store import Drill, Verified


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("stack", nargs="?", metavar="STACK", help="only data backups that hold it")
    parser.add_argument("--kind", choices=[kind.value for kind in ArtifactKind], help="only backups of this kind")


def run(arguments: Namespace, context: Context) -> int:
    appliance = context.appliance
    now = appliance.now()
    listed = [
        artifact
        for artifact in catalog.catalog(appliance.settings, now)
        if (arguments.kind is None or artifact.kind == arguments.kind)
        and (arguments.stack is None or arguments.stack in artifact.stacks)
    ]
    verified = appliance.store.verified()
    made = {artifact.name.name: artifact.made_at for artifact in listed}
    proven = _proven(appliance.store.drills().values(), made)

    def human(console: Console) -> None:
        if not listed:
            console.print("there are no backups" if arguments.stack is None else "no backup holds it")
            return
        columns = ("backup", "kind", "made", "size", "verified", "booted", "stacks")
        rows = [
            _row(artifact, verified.get(artifact.name.name), proven.get(artifact.name.name, {}), now)
            for artifact in listed
        ]
        console.print(table("", columns, rows))

    documents = [
        _document(artifact, verified.get(artifact.name.name), proven.get(artifact.name.name, {})) for artifact in listed
    ]
    context.output.show(documents, human)
    return 0


def _proven(drills: Iterable[Drill], made: Mapping[str, datetime]) -> dict[str, dict[str, datetime]]:
    """Backup -> each stack that a drill booted from it last, and when; not what had its name before it was made."""
    found: dict[str, dict[str, datetime]] = {}
    for drill in drills:
        begun = made.get(drill.success_artifact)
        if drill.success_at is not None and begun is not None and drill.success_at >= begun:
            found.setdefault(drill.success_artifact, {})[drill.stack] = drill.success_at
    return found


def _row(
    artifact: Artifact, last: Verified | None, booted: Mapping[str, datetime], now: datetime
) -> Sequence[str | Text]:
    notes = [*(["replaced, goes after 24 hours"] if artifact.replaced else []), artifact.problem]
    told = ", ".join(map(display, artifact.stacks)) + "".join(f" ({note})" for note in notes if note)
    return (
        artifact.name.name,
        artifact.kind.value,
        f"{artifact.made_at.astimezone(now.tzinfo):%Y-%m-%d %H:%M}",
        "?" if artifact.size_bytes is None else format_bytes(artifact.size_bytes),
        _verified(artifact, last, now),
        ", ".join(map(display, sorted(booted))),
        told,
    )


def _verified(artifact: Artifact, last: Verified | None, now: datetime) -> Text:
    if last is not None and last.damaged and last.at < artifact.made_at:
        return Text(f"not since {last.damaged} were damaged", STYLES[last.outcome])
    if last is None or last.at < artifact.made_at:
        return Text("not yet", "dim")
    told = f"{last.damaged} damaged, " if last.damaged else ""
    return Text(f"{told}{format_age(last.at, now)}", STYLES[last.outcome])


def _document(artifact: Artifact, last: Verified | None, booted: Mapping[str, datetime]) -> dict[str, Any]:
    current = last if last is not None and last.at >= artifact.made_at else None
    return {
        "name": artifact.name.name,
        "kind": artifact.kind.value,
        "made_at": artifact.made_at.isoformat(),
        "stacks": [display(stack) for stack in artifact.stacks],
        "size_bytes": artifact.size_bytes,
        "replaced": artifact.replaced,
        "problem": artifact.problem,
        "verified_at": current.at.isoformat() if current else None,
        "verified": current.outcome.value if current else None,
        "damaged": current.damaged if current else None,
        "damaged_before": last.damaged if last is not None and current is None else 0,
        "booted_at": {display(stack): at.isoformat() for stack, at in sorted(booted.items())},
    }
