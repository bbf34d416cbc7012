"""What a benchmark finds: figures, each with its bar."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One figure. `bar` is met where `value` is at most (`at_least`: at least) that many `unit`."""

    name: str
    value: float
    unit: str
    bar: float
    at_least: bool = False
    detail: str = ""

    @property
    def good(self) -> bool:
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    def line(self) -> str:
        word = "at least" if self.at_least else "at most"
        verdict = "ok    " if self.good else "MISSED"
        detail = f"  ({self.detail})" if self.detail else ""
        return f"{verdict} {self.name}: {self.value:.2f} {self.unit}, bar {word} {self.bar:g}{detail}"


def paired(one: Callable[[], float], other: Callable[[], float], rounds: int) -> tuple[float, float]:
    """Medians of two measurements that take turns, so that both meet the same state of the machine."""
    ones, others = [], []
    for _ in range(rounds):
        ones.append(one())
        others.append(other())
    return statistics.median(ones), statistics.median(others)


def seconds(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f} s" for value in values)
