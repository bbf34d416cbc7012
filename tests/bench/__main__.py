"""`make bench`: every figure with its bar, docs/benchmarks.md written anew, exit 1 where a bar is missed."""

from __future__ import annotations

import platform
import sys
import tempfile
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path

from bench import config_tarball, data_backup, following_the_change
from bench.figures import Figure
from host import Run

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def main() -> int:
    Run.sweep()
    run = Run()
    figures: list[Figure] = []
    try:
        with tempfile.TemporaryDirectory(prefix="stackward-bench-") as directory:
            figures += _told(config_tarball.measure(Path(directory)))
        figures += _told(data_backup.measure(run))
        figures += _told(following_the_change.measure(run))
    finally:
        run.close()
    PAGE.write_text(page(figures), encoding="utf-8")
    return 0 if all(figure.good for figure in figures) else 1


def _told(figures: Iterable[Figure]) -> Iterator[Figure]:
    for figure in figures:
        print(figure.line(), flush=True)
        yield figure


def page(figures: list[Figure]) -> str:
    rows = "\n".join(
        f"| {figure.name} | {figure.value:.2f} {figure.unit} | {figure.wanted} |"
        f" {'' if figure.bar is None else 'yes' if figure.good else '**no**'} | {figure.detail} |"
        for figure in figures
    )
    return f"""# Benchmarks

Written by `make bench` on {date.today().isoformat()}, {platform.machine()}, Linux {platform.release()}.
Whole commands on a disposable host, medians of paired runs in one go; what is compared took turns with us.

| figure | value | bar | met | detail |
| --- | --- | --- | --- | --- |
{rows}
"""


if __name__ == "__main__":
    sys.exit(main())
