"""stackward jobs: what runs when, and when it last did; and a pause, for whoever wants the host left alone for a while."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rich.text import Text

from stackward.cli.render import outcome_text, table
from stackward.core.errors import SettingsError
from stackward.core.units import format_age, parse_duration
from stackward.week import timetable

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence
    from datetime import datetime

    from rich.console import Console

    from stackward.cli.context import Context
    from stackward.core.week import Planned
    from stackward.store import RunRow
    from stackward.wiring import Appliance

_LONGEST_PAUSE = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class _Line:
    """A row of the table. `idle` says why a job that is on had nothing to do when it last looked."""

    planned: Planned
    upcoming: datetime | None
    last: RunRow | None
    idle: str

    @property
    def off(self) -> str:
        return self.planned.off or self.idle


def add_arguments(parser: ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--pause", metavar="DURATION", help="begin nothing by itself for so long (2h, 1d)")
    what.add_argument("--resume", action="store_true", help="end the pause; what was missed is made up for once")


def run(arguments: Namespace, context: Context) -> int:
    appliance = context.appliance
    now = appliance.now()
    if arguments.pause is not None:
        appliance.store.pause(now + _duration(arguments.pause))
    if arguments.resume:
        appliance.store.resume()
    appliance.runner.close_interrupted()
    paused_until = appliance.store.paused_until(now)
    lines = _lines(appliance, now)

    def human(console: Console) -> None:
        if paused_until is not None:
            console.print(f"nothing begins by itself until {paused_until.astimezone(now.tzinfo):%a %Y-%m-%d %H:%M}\n")
        columns = ("job", "does", "when", "next", "last", "outcome")
        console.print(table("", columns, [_row(line, now) for line in lines]))

    document = {
        "paused_until": paused_until.astimezone(now.tzinfo).isoformat() if paused_until else None,
        "jobs": [_document(line) for line in lines],
    }
    context.output.show(document, human)
    return 0


def _duration(text: str) -> timedelta:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise SettingsError(f"--pause {error}", hint="`stackward jobs --pause 2h`") from error
    if not 0 < seconds <= _LONGEST_PAUSE.total_seconds():
        longest = f"{_LONGEST_PAUSE.days}d"
        raise SettingsError(
            f"--pause must be more than 0 and at most {longest}",
            hint="`stackward jobs --resume` ends a pause; STACKWARD_SCHEDULE=false lets nothing begin by itself for good",
        )
    return timedelta(seconds=seconds)


def _lines(appliance: Appliance, now: datetime) -> list[_Line]:
    agenda = timetable.agenda(appliance)
    return [
        _Line(
            planned,
            agenda.next(planned, now),
            appliance.store.last_run(planned.name),
            appliance.store.idle(planned.name),
        )
        for planned in timetable.planned(appliance.settings)
    ]


def _row(line: _Line, now: datetime) -> Sequence[str | Text]:
    when = Text(f"off: {line.off}", "dim") if line.off else Text(line.planned.schedule)
    upcoming = f"{line.upcoming:%a %Y-%m-%d %H:%M}" if line.upcoming and not line.off else ""
    start = (line.planned.name, line.planned.row.summary, when, upcoming)
    if line.last is None:
        return (*start, "never", "")
    return (*start, format_age(line.last.started_at, now), outcome_text(line.last.outcome))


def _document(line: _Line) -> dict[str, Any]:
    last = line.last
    return {
        "job": line.planned.name,
        "summary": line.planned.row.summary,
        "schedule": line.planned.schedule or None,
        "off": line.off or None,
        "next": line.upcoming.isoformat() if line.upcoming and not line.off else None,
        "last_started_at": last.started_at.isoformat() if last else None,
        "last_outcome": last.outcome.value if last and last.outcome else None,
        "last_reasons": list(last.reasons) if last else [],
    }
