"""stackward status: a verdict per stack, protected or why not."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from stackward.cli.choosing import choose
from stackward.cli.render import table
from stackward.core.model import Outcome, display
from stackward.core.units import format_age
from stackward.core.verdict import State, Verdict
from stackward.steps import left_alone
from stackward.steps.report.verdicts import backups, judged, vanished

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence
    from datetime import datetime

    from rich.console import Console

    from stackward.cli.context import Context
    from stackward.store import Drill

_STYLES = {State.PROTECTED: "green", State.UNPROTECTED: "bold red", State.OFF: "dim", State.UNDECIDED: "yellow"}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("stacks", nargs="*", metavar="STACK", help="only these")


def run(arguments: Namespace, context: Context) -> int:
    appliance = context.appliance
    appliance.runner.close_interrupted()
    now = appliance.now()
    discovery = appliance.discovery
    found = backups(appliance.settings, appliance.store, now)
    names = arguments.stacks
    gone = [one for one in vanished(appliance.store, discovery.stacks, found) if not names or one.stack in names]
    there = [name for name in names if name not in {one.stack for one in gone}]
    stacks = choose(discovery, there) if there or not names else []
    verdicts = [*judged(appliance.settings, appliance.store, stacks, now, found), *gone]
    general = [problem.message for problem in discovery.problems]
    if discovery.docker_error:
        general.append(f"Docker does not answer: {discovery.docker_error}")
    general += [f"{display(name)} is held: {hold.reason}" for name, hold in appliance.store.holds().items()]
    general += [one.text for one in left_alone.look(appliance.settings, found.artifacts)]
    running = [row for row in appliance.store.runs(limit=10) if row.outcome is None]
    summary = summarise(verdicts)
    drills = appliance.store.drills()

    def human(console: Console) -> None:
        console.print(Text(summary, "bold"))
        for row in running:
            console.print(f"{row.job} is running since {format_age(row.started_at, now)}")
        for text in general:
            console.print(Text(text, "yellow"))
        if verdicts:
            rows = [_row(verdict, drills.get(verdict.stack), now) for verdict in verdicts]
            console.print(table("", ("stack", "verdict", "last good", "last booted", "why"), rows))

    document = {
        "summary": summary,
        "stacks": [_document(verdict, drills.get(verdict.stack)) for verdict in verdicts],
        "problems": general,
        "running": [row.job for row in running],
    }
    context.output.show(document, human)
    return 0


def summarise(verdicts: Sequence[Verdict]) -> str:
    """One sentence: who is protected, or that nobody decided yet."""
    decided = [verdict for verdict in verdicts if verdict.state is not State.UNDECIDED]
    wanted = [verdict for verdict in decided if verdict.state is not State.OFF]
    protected = sum(verdict.state is State.PROTECTED for verdict in wanted)
    if not verdicts:
        return "no stacks were found"
    undecided = f"{len(decided)} of {len(verdicts)} stacks decided; run `stackward init`"
    if not wanted:
        return undecided if len(decided) < len(verdicts) else "every stack is switched off"
    told = f"{protected} of {len(wanted)} stacks protected"
    return told if len(decided) == len(verdicts) else f"{told}; {undecided}"


def _row(verdict: Verdict, drill: Drill | None, now: datetime) -> Sequence[str | Text]:
    state = Text(verdict.state.value, _STYLES[verdict.state])
    last = format_age(verdict.last_good, now) if verdict.last_good else ""
    why = "\n".join((*verdict.reasons, *(f"note: {note}" for note in verdict.notes)))
    return (display(verdict.stack), state, last, _booted(drill, now), why)


def _booted(drill: Drill | None, now: datetime) -> Text:
    """When a drill last booted it from a backup; in red if a later one failed."""
    if drill is None or (drill.success_at is None and drill.outcome is not Outcome.FAILED):
        return Text("")
    told = format_age(drill.success_at, now) if drill.success_at else "never"
    if drill.outcome is Outcome.FAILED:
        return Text(told, "bold red")
    return Text(f"{told}, {len(drill.proofs)} proofs" if drill.proofs else told)


def _document(verdict: Verdict, drill: Drill | None) -> dict[str, Any]:
    return {
        **asdict(verdict),
        "state": verdict.state.value,
        "last_good": verdict.last_good.isoformat() if verdict.last_good else None,
        "booted_at": drill.success_at.isoformat() if drill and drill.success_at else None,
        "booted_from": drill.success_artifact if drill else "",
        "drill": drill.outcome.value if drill else None,
        "proofs": list(drill.proofs) if drill else [],
    }
