"""What a benchmark finds: figures, each with its bar."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One figure. `bar` is met where `value` is at most (`at_least`: at least) that many `unit`; None: it has none."""

    name: str
    value: float
    unit: str
    bar: float | None = None
    at_least: bool = False
    detail: str = ""

    @property
    def good(self) -> bool:
        if self.bar is None:
            return True
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    @property
    def wanted(self) -> str:
        return "" if self.bar is None else f"{'≥' if self.at_least else '≤'} {self.bar:g}"

    def line(self) -> str:
        verdict = "shown " if self.bar is None else "ok    " if self.good else "MISSED"
        bar = f", bar {self.wanted}" if self.wanted else ""
        detail = f"  ({self.detail})" if self.detail else ""
        return f"{verdict} {self.name}: {self.value:.2f} {self.unit}{bar}{detail}"


def in_turn(
    tools: Mapping[str, Callable[[], float]], rounds: int, *, before: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """The median of each tool's measurements; they take turns, so that all meet the same state of the machine.

    `before` is called before each of them.
    """
    found: dict[str, list[float]] = {name: [] for name in tools}
    for _ in range(rounds):
        for name, measure in tools.items():
            before()
            found[name].append(measure())
    return {name: statistics.median(values) for name, values in found.items()}


def seconds(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f} s" for value in values)
