"""stackward runs: what was done, and how it ended."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from stackward.cli.amounts import count
from stackward.cli.render import outcome_text, table
from stackward.cli.results import counted, named
from stackward.core.model import display
from stackward.core.units import format_duration
from stackward.week import chains

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence
    from datetime import tzinfo

    from rich.text import Text

    from stackward.cli.context import Context
    from stackward.store import RunRow


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("stack", nargs="?", metavar="STACK", help="only its part of runs")
    parser.add_argument("--job", help="only runs of this job or chain")
    parser.add_argument(
        "--all", action="store_true", help="also those of jobs that run every few minutes and found nothing"
    )
    parser.add_argument("--limit", type=count, default=20, metavar="N", help="the newest N (20)")


def run(arguments: Namespace, context: Context) -> int:
    appliance = context.appliance
    appliance.runner.close_interrupted()
    quiet = () if arguments.all or arguments.job else chains.FREQUENT
    rows = appliance.store.runs(arguments.job, arguments.stack, arguments.limit, unless_good=quiet)
    zone = appliance.settings.zone
    columns = ("started", "took", "job", "by", "outcome", "what", "why")
    context.output.show(
        [_document(row) for row in rows],
        lambda console: console.print(
            table("", columns, [_row(row, zone) for row in rows]) if rows else "nothing was run yet"
        ),
    )
    return 0


def _row(row: RunRow, zone: tzinfo) -> Sequence[str | Text]:
    took = format_duration((row.ended_at - row.started_at).total_seconds()) if row.ended_at else ""
    job = f"{row.job} {display(row.stack)}" if row.stack else row.job
    what = counted(row.counts) or named(row.job, row.artifacts, row.details)
    started = f"{row.started_at.astimezone(zone):%Y-%m-%d %H:%M}"
    return (started, took, job, row.trigger, outcome_text(row.outcome), what, "\n".join(row.reasons))


def _document(row: RunRow) -> dict[str, Any]:
    return {
        **asdict(row),
        "started_at": row.started_at.isoformat(),
        "ended_at": row.ended_at.isoformat() if row.ended_at else None,
        "outcome": row.outcome.value if row.outcome else None,
    }
