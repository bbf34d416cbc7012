"""Where a verb's results go: to people as `render` draws them, to programs as JSON.

What draws is imported when something is drawn: a backup that a timer starts spends no time on it.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from stackward.core.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from stackward.core.progress import Progress


class Output:
    """Standard output of a verb. `human` is what `--human` or `--json` said, or None: then the terminal decides."""

    def __init__(self, *, human: bool | None = None) -> None:
        self.human = sys.stdout.isatty() if human is None else human

    @cached_property
    def console(self) -> Console:
        from stackward.cli import render

        return render.console()

    def show(self, document: Any, human: Callable[[Console], None]) -> None:
        """Print `document` as JSON, or let `human` draw the same on the console."""
        if self.human:
            human(self.console)
        else:
            print(json.dumps(document, indent=1, default=str))

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Bars on standard error while the body runs, if a person is there to watch them; warnings always."""
        if not (self.human and sys.stderr.isatty()):
            yield _Warnings()
            return
        from stackward.cli import render

        with render.watched() as bars:
            yield bars


class _Warnings(Silent):
    def warn(self, text: str) -> None:
        with suppress(OSError):  # nobody reads it any more: no reason for a run to fail
            print(f"stackward: {text}", file=sys.stderr)
