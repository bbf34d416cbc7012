"""Running programs on the machine that the disposable hosts live on."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Completed = subprocess.CompletedProcess[str]


class CommandError(Exception):
    """A command failed; the message holds the command, its exit code and the end of what it said."""


def tail(text: str, lines: int = 25) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])


def checked(done: Completed, label: str) -> Completed:
    """`done` as it is, or a CommandError that says what `label` said before it failed."""
    if done.returncode != 0:
        said = tail(f"{done.stdout or ''}\n{done.stderr or ''}")
        raise CommandError(f"exit code {done.returncode} from: {label}\n{said}")
    return done


def run(argv: Sequence[str], *, check: bool = True, stdin: str | None = None, timeout: float | None = 600) -> Completed:
    """Run `argv` and capture what it prints; undecodable bytes survive as surrogates."""
    done = subprocess.run(
        argv,
        check=False,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=timeout,
    )
    return checked(done, " ".join(argv)) if check else done


def pipe(source: Sequence[str], sink: Sequence[str]) -> None:
    """`source | sink`, where both must succeed."""
    with subprocess.Popen(source, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as giving:
        taking = subprocess.run(sink, stdin=giving.stdout, capture_output=True, text=True, check=False)
    checked(taking, " ".join(sink))
    if giving.returncode != 0:
        raise CommandError(f"exit code {giving.returncode} from: {' '.join(source)}")


def answers(argv: Sequence[str], timeout: float = 60) -> bool:
    """Whether `argv` exists, ends in time, and with exit code 0."""
    try:
        return run(argv, check=False, timeout=timeout).returncode == 0
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False


def say(line: str) -> None:
    """Tell whoever waits what is going on; standard output stays free for results."""
    print(line, file=sys.stderr, flush=True)
