"""`make bench`: every figure with its bar; writes docs/benchmarks.md, and ends with 1 where a bar is missed.

`make bench ARGS=scrape` measures one group of figures alone (or several: see GROUPS), and writes nothing.
"""

from __future__ import annotations

import platform
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from pathlib import Path

from bench import config_tarball, data_backup, following_the_change, scrape
from bench.figures import Figure
from host import Run

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"


# Of each group, what measures it, and whether that needs a directory of its own or disposable hosts.
GROUPS: dict[str, Callable[[Path, Run], Iterable[Figure]]] = {
    "scrape": lambda directory, _run: scrape.measure(directory),
    "config_tarball": lambda directory, _run: config_tarball.measure(directory),
    "data_backup": lambda _directory, run: data_backup.measure(run),
    "following_the_change": lambda _directory, run: following_the_change.measure(run),
}


def main() -> int:
    wanted = sys.argv[1:] or list(GROUPS)
    if unknown := set(wanted) - set(GROUPS):
        print(f"there is no group {', '.join(sorted(unknown))}; there are: {', '.join(GROUPS)}", file=sys.stderr)
        return 2
    Run.sweep()
    run = Run()
    figures: list[Figure] = []
    try:
        for name in wanted:
            with tempfile.TemporaryDirectory(prefix="stackward-bench-") as directory:
                figures += _told(GROUPS[name](Path(directory), run))
    finally:
        run.close()
    if wanted == list(GROUPS):
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
