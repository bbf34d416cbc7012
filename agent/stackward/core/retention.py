"""Which backups (of one stack, or of one kind) are kept, and why.

Pure: facts, the rule and `now` go in, a decision with reasons for every item comes out. Doubt keeps.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING

from stackward.core.values import format_keep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stackward.core.model import Keep

_PERIODS: dict[str, Callable[[datetime], str]] = {
    "hourly": lambda local: local.strftime("%Y-%m-%d %Hh %z"),
    "daily": lambda local: local.strftime("%Y-%m-%d"),
    "weekly": lambda local: local.strftime("%G-W%V"),
    "monthly": lambda local: local.strftime("%Y-%m"),
    "yearly": lambda local: local.strftime("%Y"),
}


@dataclass(frozen=True, slots=True)
class Item:
    """A backup as retention sees it.

    `good` is False for one that is known to be damaged or incomplete; `pinned` and `held` say why somebody needs it.
    """

    key: str
    when: datetime
    good: bool = True
    pinned: str = ""
    held: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """`reasons` is never empty: why the item is kept, or why nothing keeps it."""

    item: Item
    keep: bool
    reasons: tuple[str, ...]


def plan(items: Sequence[Item], keep: Keep, now: datetime, zone: tzinfo | None = None) -> list[Decision]:
    """A decision for each item, in the order given. Days, weeks and years are those of `zone` (without it, `now`'s).

    - `keep.days`: whatever is at most so many calendar days old stays.
    - The grid: the newest of each of the N most recent periods that have a good one. One that is not good fills no
      slot, but stays where its period has nothing better.
    - Whatever the rule: what is pinned or held stays, what is dated in the future, the last good one, and everything
      where no good one is left or the rule is empty.

    Raises ValueError for a time without a zone.
    """
    if now.tzinfo is None or any(item.when.tzinfo is None for item in items):
        raise ValueError("retention needs times with a zone")
    zone = zone or now.tzinfo
    reasons: dict[int, list[str]] = defaultdict(list)
    past = [index for index, item in enumerate(items) if item.when <= now]
    # Newest first; the key decides among equal times, so that the plan does not depend on the order given.
    past.sort(key=lambda index: (items[index].when.astimezone(UTC), items[index].key), reverse=True)
    _keep_regardless(items, past, reasons)
    _keep_days(items, past, keep, now.astimezone(zone), reasons)
    for rule, period_of in _PERIODS.items():
        periods: dict[str, list[int]] = defaultdict(list)
        for index in past:
            periods[period_of(items[index].when.astimezone(zone))].append(index)
        _keep_grid(items, periods, rule, getattr(keep, rule), reasons)
    if not format_keep(keep):
        for index in past:
            reasons[index].append("there is no rule for how long to keep it")
    return [_decision(item, reasons[index], keep) for index, item in enumerate(items)]


def _keep_regardless(items: Sequence[Item], past: list[int], reasons: dict[int, list[str]]) -> None:
    for index, item in enumerate(items):
        if item.held:
            reasons[index].append(f"held: {item.held}")
        if item.pinned:
            reasons[index].append(f"pinned: {item.pinned}")
    for index in set(range(len(items))) - set(past):
        reasons[index].append("it is dated in the future: is the clock right?")
    last_good = next((index for index in past if items[index].good), None)
    if last_good is not None:
        reasons[last_good].append("the last good one")
        return
    for index in past:
        reasons[index].append("there is no good one")


def _keep_days(
    items: Sequence[Item], past: list[int], keep: Keep, now: datetime, reasons: dict[int, list[str]]
) -> None:
    if keep.days is None:
        return
    for index in past:
        age = (now.date() - items[index].when.astimezone(now.tzinfo).date()).days
        if age <= keep.days:
            reasons[index].append(f"{age} days old, {keep.days} are kept")


def _keep_grid(
    items: Sequence[Item], periods: dict[str, list[int]], rule: str, count: int, reasons: dict[int, list[str]]
) -> None:
    """`periods` holds each period's items, newest period and newest item first."""
    filled = 0
    for period, members in periods.items():
        if filled == count:
            return
        good = next((index for index in members if items[index].good), None)
        if good is None:
            reasons[members[0]].append(f"damaged, but the only one of {period}")
            continue
        filled += 1
        reasons[good].append(f"newest of {period} ({rule} {filled} of {count})")


def _decision(item: Item, reasons: list[str], keep: Keep) -> Decision:
    if reasons:
        return Decision(item, keep=True, reasons=tuple(dict.fromkeys(reasons)))
    damaged = () if item.good else ("it is damaged",)
    return Decision(item, keep=False, reasons=(f"older than {format_keep(keep)} keeps", *damaged))
