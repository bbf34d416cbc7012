"""What will run by itself, and when; what should have, and did not; and whether the watcher sees what it is to see."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from stackward.core import week
from stackward.core.agenda import Agenda
from stackward.core.schedule import interval_seconds
from stackward.core.units import format_age, format_duration
from stackward.steps.doctor import Facts, Finding, info, ok, warn
from stackward.steps.report import heartbeat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackward.core.week import Planned

TOPIC = "schedule"
_WATCHER_LATE = timedelta(minutes=15)  # it may be busy with hundreds of stacks that changed at once


def look(facts: Facts) -> Iterator[Finding]:
    settings = facts.settings
    if settings.schedule:
        rows = week.plan(settings.schedules, on=True)
        agenda = Agenda(rows, settings.zone)
        for row in rows:
            yield from _row(facts, agenda, row)
        yield from _pause(facts)
    yield from _watcher(facts)


def _row(facts: Facts, agenda: Agenda, row: Planned) -> Iterator[Finding]:
    upcoming = agenda.next(row, facts.now)
    if upcoming is None:
        yield info(TOPIC, f"{row.name} is off: {row.off}")
        return
    jitter = facts.settings.jitter
    later = f", or up to {format_duration(jitter.total_seconds())} later" if jitter else ""
    yield ok(TOPIC, f"{row.name} runs at `{row.schedule}`: next {upcoming:%a %Y-%m-%d %H:%M %Z}{later}")
    last = facts.store.last_begun(row.name, facts.now)
    pause = timedelta(seconds=interval_seconds(row.schedule, facts.now))
    if last is not None and facts.now - last > pause * 2 + timedelta(hours=1):
        text = f"{row.name} last began {format_age(last, facts.now)}, and should more often"
        yield warn(TOPIC, text, "`docker logs stackward` says why; `stackward jobs` when it runs next")


def _pause(facts: Facts) -> Iterator[Finding]:
    until = facts.store.paused_until(facts.now)
    if until is not None:
        text = f"nothing begins by itself until {until.astimezone(facts.now.tzinfo):%a %Y-%m-%d %H:%M}: it is paused"
        yield warn(TOPIC, text, "`stackward jobs --resume` ends the pause")


def _watcher(facts: Facts) -> Iterator[Finding]:
    beat = heartbeat.last(facts.settings, heartbeat.WATCHER)
    if beat is None:
        return  # as long as it never ran, the daemon did not either, and that is said
    if facts.now - beat > _WATCHER_LATE:
        text = f"the watcher's last sign of life was {format_age(beat, facts.now)}: new stacks are found later"
        yield warn("watcher", text, "docker compose logs stackward, then docker compose restart")
    elif limit := facts.store.note(heartbeat.WATCHER_LIMIT):
        text, _, hint = limit.partition("\nHINT: ")
        yield warn(
            "watcher", f"not everything is watched, so that changes are seen later: {text}", hint or "docs/jobs.md"
        )
    else:
        yield ok("watcher", "the watcher is alive")
