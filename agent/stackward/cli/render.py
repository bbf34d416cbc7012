"""How results look on a terminal: tables, colours and progress bars."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from stackward.core.model import Outcome
from stackward.core.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

STYLES = {Outcome.OK: "green", Outcome.WARN: "yellow", Outcome.FAILED: "bold red", Outcome.SKIPPED: "dim"}

_WORD_WIDTH = 20  # cells up to this are words, stamps and numbers: they stay on one line
_NAME_WIDTH = 24  # names up to this are never shortened
_NAMES = frozenset({"stack", "project", "tree", "job"})  # the columns that have names which somebody chose
_PIPE_WIDTH = 200  # nobody folds lines that a pipe carries


def console() -> Console:
    """Standard output, as wide as the terminal is."""
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Console(highlight=False, markup=False, emoji=False, width=width)


@contextmanager
def watched() -> Iterator[Watched]:
    """Bars on standard error while the body runs."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), Amount(), TimeRemainingColumn())
    errors = Console(stderr=True, highlight=False, markup=False, emoji=False)
    with Bars(*columns, console=errors, transient=True) as bars:
        yield Watched(bars)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """A table of plain text: nothing in a cell is taken for markup. Names go through `display` before.

    Where the terminal is narrow, the last column is folded, the others only if they are sentences. On a terminal long names
    of stacks and the like are shortened in the middle.
    """
    cells = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    drawn = Table(
        title=title or None, title_justify="left", title_style="bold", box=None, header_style="bold", pad_edge=False
    )
    for number, column in enumerate(columns):
        widest = max((line.cell_len for row in cells for line in row[number].split("\n")), default=0)
        drawn.add_column(Text(column), overflow="fold", no_wrap=number < len(columns) - 1 and widest <= _WORD_WIDTH)
    names = [column.strip() in _NAMES for column in columns]
    for row in cells:
        drawn.add_row(*(Name(cell) if name else cell for cell, name in zip(row, names, strict=True)))
    return drawn


@dataclass(frozen=True, slots=True)
class Name:
    """A name in a table: on a terminal one that would leave no room for the rest is shortened in the middle."""

    text: Text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._shown(console, options)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._shown(console, options))

    def _shown(self, console: Console, options: ConsoleOptions) -> Text:
        if not console.is_terminal:
            return self.text
        room = min(max(_NAME_WIDTH, console.width // 4), options.max_width)
        return Text(shortened(self.text.plain, room), self.text.style, no_wrap=True)


def shortened(text: str, width: int) -> str:
    """The text, or its beginning and its end with `…` between them, in at most `width` columns of a terminal."""
    if cell_len(text) <= width:
        return text
    begin, end = 0, len(text)
    while cell_len(text[: begin + 1]) <= width // 2:
        begin += 1
    while cell_len(text[end - 1 :]) <= width - width // 2 - 1:
        end -= 1
    return f"{text[:begin]}…{text[end:]}"


def outcome_text(outcome: Outcome | None) -> Text:
    """An outcome in its colour; None is a run that goes on."""
    return Text("running", "cyan") if outcome is None else Text(outcome.value, STYLES[outcome])


class Amount(ProgressColumn):
    """Bytes and files so far, and of how many, as far as it is known."""

    def render(self, task: Task) -> Text:
        of = f" of {format_bytes(task.total)}" if task.total else ""
        told = [f"{format_bytes(task.completed)}{of}"] if task.completed or task.total else []
        files, total_files = task.fields["files"], task.fields["total_files"]
        if files:
            told.append(f"{files}{f' of {total_files}' if total_files else ''} files")
        return Text(", ".join(told))


class Watched:
    """Progress as bars: one line a step, the earlier ones vanish when the next begins."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None
        self._files = 0

    def step(self, text: str, *, total_bytes: int | None = None, total_files: int | None = None) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._files = 0
        self._task = self._bars.add_task(text, total=total_bytes, files=0, total_files=total_files)

    def advance(self, *, byte_count: int = 0, files: int = 0) -> None:
        if self._task is None:
            return
        self._files += files
        self._bars.update(self._task, advance=byte_count, files=self._files)

    def warn(self, text: str) -> None:
        self._bars.console.print(f"stackward: {text}", style="yellow")
