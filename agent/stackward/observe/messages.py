"""What people are told, in words. Pure: values and `now` go in, a message comes out.

The manner: who failed, when, why; what there still is; what is fine; what to do next. Names go through `display` before.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from stackward.core.model import display
from stackward.observe.notice import Changes, Kind, Message

_LISTED = 10
_HINT = "HINT: "
# What a person types after a job failed as a whole.
_NEXT = {
    "backup-config": "stackward backup --config",
    "backup-data": "stackward backup",
    "verify": "stackward verify",
    "prune": "stackward prune",
    "nightly": "stackward run nightly",
    "weekly": "stackward run weekly",
    "health": "stackward health",
    "observability": "stackward observability",
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """A stack's part of a job that failed, or with `stack` "" the job itself."""

    stack: str
    at: datetime
    reasons: tuple[str, ...]
    last_good: datetime | None = None

    @property
    def why(self) -> str:
        told = [reason for reason in self.reasons if not reason.startswith(_HINT)]
        return "; ".join(told).rstrip(".") or "no reason was given"

    @property
    def advice(self) -> str:
        """What the one who failed has to say about mending it, or ""."""
        return next((reason.removeprefix(_HINT) for reason in self.reasons if reason.startswith(_HINT)), "")


def ended(
    job: str,
    troubles: Sequence[Trouble],
    recovered: Mapping[str, datetime],
    now: datetime,
    *,
    fine: int = 0,
    still: int = 0,
) -> Message | None:
    """How a job ended, as far as it is news: what failed (and did not before), and what is fine again.

    `recovered` is stack → since when it had failed; `fine` counts the stacks that did not fail, `still` those that
    failed before, too.
    """
    lines = _failures(job, troubles, _others(fine, still), now) + _recoveries(job, recovered, now)
    if not lines:
        return None
    kind = Kind.FAILURE if troubles else Kind.SUCCESS
    return Message(_title(job, troubles, recovered), "\n".join(lines), kind)


def together(found: Sequence[Message]) -> Message | None:
    """What one chain has to tell, as one message: the worst gives it its title."""
    if len(found) < 2:
        return found[0] if found else None
    first = min(found, key=lambda message: message.kind is not Kind.FAILURE)
    body = "\n".join(message.body for message in found)
    return Message(f"{first.title}, and {len(found) - 1} more", body, first.kind)


def standing(changes: Changes, now: datetime) -> Message | None:
    """What stands wrong whether anything runs or not, and what no longer does; the keys are what each is about."""
    lines = [_sentence_case(text) for text in changes.raised.values()]
    lines += [
        f"{_sentence_case(key)}: fine again; it was not since {when(at, now)}." for key, at in changes.recovered.items()
    ]
    if not lines:
        return None
    subjects = list(changes.raised) or list(changes.recovered)
    more = f" and {len(subjects) - 1} more" if len(subjects) > 1 else ""
    title = f"{_sentence_case(subjects[0])}{more}: {'look at it' if changes.raised else 'fine again'}"
    return Message(title, "\n".join(_bounded(lines)), Kind.WARNING if changes.raised else Kind.SUCCESS)


def when(at: datetime, now: datetime) -> str:
    """`02:04`, `yesterday 02:03`, `Monday 02:03`, `2026-11-03 02:03`, as a clock at `now`'s place shows it."""
    local = at.astimezone(now.tzinfo)
    days = (now.date() - local.date()).days
    if days == 0:
        return f"{local:%H:%M}"
    if days == 1:
        return f"yesterday {local:%H:%M}"
    if 1 < days < 7:
        return f"{local:%A %H:%M}"
    return f"{local:%Y-%m-%d %H:%M}"


def _failures(job: str, troubles: Sequence[Trouble], others: str, now: datetime) -> list[str]:
    if not troubles:
        return []
    if not troubles[0].stack:
        others = ""  # the job as a whole failed: it says nothing of stacks
    told = [_told(job, trouble, now) for trouble in troubles]
    end = f"{others} {_next(job, troubles)}".strip()
    if len(told) == 1:
        return [f"{told[0]} {end}"]
    return [f"{len(told)} stacks failed in {job}:", *_bounded([f"- {one}" for one in told]), end]


def _others(fine: int, still: int) -> str:
    if not fine:
        return "No other one is fine." if still else ""
    if still:
        return f"{fine} {'other is' if fine == 1 else 'others are'} fine, {still} still {'fails' if still == 1 else 'fail'}."
    return "The other one is fine." if fine == 1 else f"The other {fine} are fine."


def _told(job: str, trouble: Trouble, now: datetime) -> str:
    who = f"{display(trouble.stack)} failed" if trouble.stack else f"{job} failed"
    if trouble.stack and job != "backup-data":
        who += f" in {job}"
    told = f"{who} at {when(trouble.at, now)}: {trouble.why}. "
    if trouble.last_good is None:
        return told + "It never succeeded before."
    return f"{told}Last good: {when(trouble.last_good, now)}."


def _next(job: str, troubles: Sequence[Trouble]) -> str:
    """Where the one who failed knows better than to try again, its advice."""
    if advice := next((trouble.advice for trouble in troubles if trouble.advice), ""):
        return f"Next: {advice}"
    stacks = [trouble.stack for trouble in troubles if trouble.stack]
    if job == "backup-data" and stacks and len(stacks) <= _LISTED:
        return f"Next: `stackward backup {' '.join(shlex.quote(display(stack)) for stack in stacks)}`"
    return f"Next: `{_NEXT.get(job, f'stackward runs --job {job}')}`"


def _recoveries(job: str, recovered: Mapping[str, datetime], now: datetime) -> list[str]:
    lines = [
        f"{display(stack) if stack else job} is fine again; it had failed since {when(since, now)}."
        for stack, since in recovered.items()
    ]
    return _bounded(lines)


def _title(job: str, troubles: Sequence[Trouble], recovered: Mapping[str, datetime]) -> str:
    names = [trouble.stack for trouble in troubles] or list(recovered)
    what = "failed" if troubles else "fine again"
    named = [display(name) for name in names if name]
    if not named:
        return f"{job} {what}"
    listed = ", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "")
    return f"{listed}: {job} {what}"


def _bounded(lines: list[str]) -> list[str]:
    rest = len(lines) - _LISTED
    return lines if rest <= 1 else [*lines[:_LISTED], f"… and {rest} more; `stackward status` has them all."]


def _sentence_case(text: str) -> str:
    """A name at the beginning keeps its case."""
    return text[0].upper() + text[1:] if text.startswith(("the ", "a ", "its ", "what ")) else text
