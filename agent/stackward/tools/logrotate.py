"""logrotate(8), with a configuration and a state of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

from stackward.core.errors import StackwardError
from stackward.tools import process

_LIMIT_SECONDS = 1800.0  # what it compresses may be large


class LogrotateMissingError(StackwardError):
    """logrotate is not installed here."""


def rotate(configuration: Path, state: Path, *, dry_run: bool = False) -> str:
    """Rotate what is due by what `state` remembers; returns what it said.

    Raises:
        LogrotateMissingError: it is not installed.
        CommandError: it could not rotate everything.
    """
    if shutil.which("logrotate") is None:
        raise LogrotateMissingError("logrotate is not installed", hint="install logrotate")
    how = ["--debug"] if dry_run else []
    argv: list[process.Argument] = ["logrotate", *how, "--state", state, "--", configuration]
    return process.run(argv, time_limit_seconds=_LIMIT_SECONDS).stderr_tail
