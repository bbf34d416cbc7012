"""stackward jobs: what runs when, and when it last did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackward import chains
from stackward.cli.render import outcome_text, table
from stackward.core.schedule import next_run
from stackward.core.units import format_age

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence
    from datetime import datetime

    from rich.text import Text

    from stackward.chains import Chain
    from stackward.cli.context import Context
    from stackward.store import RunRow
    from stackward.wiring import Appliance


def add_arguments(_parser: ArgumentParser) -> None:
    """Nothing can be chosen."""


def run(_arguments: Namespace, context: Context) -> int:
    appliance = context.appliance
    now = appliance.now()
    appliance.runner.close_interrupted()
    found = [(chain, _next(appliance, chain, now), appliance.store.last_run(chain.name)) for chain in chains.WEEK]
    context.output.show(
        [_document(chain, upcoming, last) for chain, upcoming, last in found],
        lambda console: console.print(
            table(
                "",
                ("chain", "does", "next", "last", "outcome"),
                [_row(chain, upcoming, last, now) for chain, upcoming, last in found],
            )
        ),
    )
    return 0


def _next(appliance: Appliance, chain: Chain, now: datetime) -> datetime | None:
    """None where the schedule is switched off."""
    return next_run(chain.schedule, now, appliance.settings.zone) if appliance.settings.schedule else None


def _row(chain: Chain, upcoming: datetime | None, last: RunRow | None, now: datetime) -> Sequence[str | Text]:
    when = f"{upcoming:%a %Y-%m-%d %H:%M}" if upcoming else "switched off"
    if last is None:
        return (chain.name, chain.summary, when, "never", "")
    return (chain.name, chain.summary, when, format_age(last.started_at, now), outcome_text(last.outcome))


def _document(chain: Chain, upcoming: datetime | None, last: RunRow | None) -> dict[str, Any]:
    return {
        "chain": chain.name,
        "schedule": chain.schedule,
        "summary": chain.summary,
        "next": upcoming.isoformat() if upcoming else None,
        "last_started_at": last.started_at.isoformat() if last else None,
        "last_outcome": last.outcome.value if last and last.outcome else None,
    }
