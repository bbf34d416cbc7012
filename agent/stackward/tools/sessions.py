"""Sessions of commands: each command leads one of its own, and all that is in it ends together.

`docker` starts `docker compose` as a program of its own, rsync starts ssh: killing the program that was started leaves those
behind. `kill` ends everything in a session. If this process itself is killed, its guardian does it: a shell that waits at
the end of a pipe, and knows the sessions that are open.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SWEEPS = 5  # a process that forks while it is being looked for shows up in the next one
# Reads "+ SESSION" and "- SESSION". At the end of its input, kills what is in the sessions that are still open.
_GUARDIAN = r"""
open=' '
while read -r verb session; do
    case $verb in
        +) open="$open$session " ;;
        -) case $open in *" $session "*) open="${open%%" $session "*} ${open#*" $session "}" ;; esac ;;
    esac
done
for session in $open; do
    kill -KILL "-$session"
    for file in /proc/[0-9]*/stat; do
        read -r line <"$file" || continue
        pid=${line%% *}
        set -- ${line##*) }
        [ "$4" != "$session" ] || kill -KILL "$pid"
    done
done
"""


class Guardian:
    """Kills the open sessions of this process once it is gone. The shell is started with the first of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipe: int | None = None

    @contextmanager
    def watching(self, session: int) -> Iterator[None]:
        """Within the body the session does not outlive this process."""
        self._tell(f"+ {session}\n")
        try:
            yield
        finally:
            self._tell(f"- {session}\n")

    def _tell(self, line: str) -> None:
        with self._lock:
            if self._pipe is None:
                self._pipe = _start()
            try:
                os.write(self._pipe, line.encode("ascii"))
            except BrokenPipeError:  # it was killed: the next one knows at least of this session
                os.close(self._pipe)
                self._pipe = _start()
                os.write(self._pipe, line.encode("ascii"))


GUARDIAN = Guardian()


def end(session: int, number: int) -> None:
    """Send a signal to the session's own process group, which nearly all that is in it belongs to."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(session, number)


def kill(session: int) -> None:
    """Kill all processes of a session, also those that lead process groups of their own."""
    for _ in range(_SWEEPS):
        end(session, signal.SIGKILL)
        found = members(session)
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return


def members(session: int) -> list[int]:
    """The processes of a session that have not ended."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            fields = Path(f"/proc/{name}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in ("Z", "X"):
            found.append(int(name))
    return found


def _start() -> int:
    """Start the guardian's shell; returns the end of the pipe that it reads from. It holds none of our other files."""
    reading, writing = os.pipe()
    try:
        os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", _GUARDIAN],
            {"LC_ALL": "C"},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, reading, 0),
                (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
            ],
            setsid=True,
        )
    finally:
        os.close(reading)
    return writing
