"""What a scrape of `/metrics` costs on a host with 200 stacks, after a change that has everything written down again."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import Figure
from stackward.observe.metrics import exposition
from unit.test_web import STACKS, fill, open_store

ROUNDS = 9
BAR_SECONDS = 0.1


def measure(directory: Path) -> Iterator[Figure]:
    spent = []
    with open_store(directory) as store:
        fill(store)
        for _ in range(ROUNDS):
            began = time.process_time()
            exposition(store.facts())
            spent.append(time.process_time() - began)
    yield Figure(f"CPU time of a scrape, {STACKS} stacks", statistics.median(spent), "s", BAR_SECONDS)
