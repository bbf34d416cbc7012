"""Runs a command in a container over Docker's API, with an end to it.

Docker has no way to stop an exec'd process. So each one carries a random marker in its environment, and when its time
is up, everything in the container that carries the marker is killed: the command's children too.
"""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackward.core.errors import StackwardError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from docker import APIClient

TAIL_BYTES = 4096
_MARKER = "STACKWARD_EXEC"
_CHUNK = 1 << 16
_STDOUT = 1
_KILL_WAIT_SECONDS = 5.0
# Again and again, since a process may fork between being found and being killed.
_KILL_SCRIPT = """
for round in 1 2 3 4 5; do
  found=$(grep -lsF -e "$1" /proc/[0-9]*/environ) || exit 0
  for file in $found; do pid=${file#/proc/}; kill -9 "${pid%/environ}" 2>/dev/null; done
done
"""

Sink = Callable[[bytes], object]


class HookTimeout(StackwardError):  # noqa: N818 - it says what happened
    """A command in a container took too long and was killed."""


@dataclass(frozen=True, slots=True)
class ExecResult:
    """`output_tail` is the last 4 KiB of what the command wrote (of stderr alone where stdout went elsewhere)."""

    exit_code: int
    output_tail: str


class _Tail:
    def __init__(self) -> None:
        self._kept = bytearray()

    def __call__(self, chunk: bytes) -> None:
        self._kept += chunk[-TAIL_BYTES:]
        del self._kept[:-TAIL_BYTES]

    @property
    def text(self) -> str:
        return self._kept.decode("utf-8", "backslashreplace")


def execute(
    api: APIClient,
    container_id: str,
    command: Sequence[str],
    *,
    stdout: Sink | None = None,
    total_seconds: float | None = None,
    stall_seconds: float | None = None,
    environment: Mapping[str, str] | None = None,
    user: str = "",
) -> ExecResult:
    """Run to the end; both outputs go to the tail, or stdout to `stdout` and only stderr to the tail.

    Raises:
        HookTimeout: it took longer than `total_seconds`, or was silent for `stall_seconds`; it has been killed.
    """
    marker = f"{_MARKER}={secrets.token_hex(8)}"
    variables = [*(f"{name}={value}" for name, value in (environment or {}).items()), marker]
    created = api.exec_create(container_id, list(command), environment=variables, user=user)
    exec_id = str(created["Id"])
    tail = _Tail()
    deadline = None if total_seconds is None else time.monotonic() + total_seconds
    stream = _Stream(api, exec_id)
    try:
        stream.pump(stdout or tail, tail, deadline, stall_seconds)
    except TimeoutError:
        if (code := _exit_code(api, exec_id, 0)) is not None:  # done; only a child in the background holds the stream
            return ExecResult(code, tail.text)
        ended = _kill(api, stream, container_id, exec_id, marker)
        limit = f"{total_seconds:.0f} s" if total_seconds is not None else f"{stall_seconds:.0f} s without output"
        fate = "it was killed" if ended else "it could not be killed and may still run"
        raise HookTimeout(f"{' '.join(command)[:200]}: not done after {limit}; {fate}", hint=tail.text[-500:]) from None
    except BaseException:
        _kill(api, stream, container_id, exec_id, marker)
        raise
    finally:
        stream.close()
    code = _exit_code(api, exec_id, _KILL_WAIT_SECONDS)
    if code is None:  # it closed its outputs and goes on: a daemon of its own making
        raise HookTimeout(f"{' '.join(command)[:200]}: closed its output but does not end")
    return ExecResult(code, tail.text)


class _Stream:
    """The hijacked connection of an exec: frames of stdout and stderr."""

    def __init__(self, api: APIClient, exec_id: str) -> None:
        raw: Any = api.exec_start(exec_id, socket=True)
        self._response = raw._response  # noqa: SLF001 - the SDK keeps it there
        # The buffered reader, not the raw one the SDK hands out: it may already hold the first bytes of output.
        self._reader = self._response.raw._fp.fp  # noqa: SLF001
        self._socket = getattr(raw, "_sock", raw)

    def pump(self, stdout: Sink, stderr: Sink, deadline: float | None, stall_seconds: float | None) -> None:
        """Hand on every frame until the stream ends. Raises TimeoutError."""
        while header := self._read(8, deadline, stall_seconds):
            while len(header) < 8:
                more = self._read(8 - len(header), deadline, stall_seconds)
                if not more:
                    return
                header += more
            sink = stdout if header[0] == _STDOUT else stderr
            left = int.from_bytes(header[4:8], "big")
            while left:
                chunk = self._read(min(left, _CHUNK), deadline, stall_seconds)
                if not chunk:
                    return
                sink(chunk)
                left -= len(chunk)

    def drain(self, seconds: float) -> None:
        """Throw away what comes until the stream ends: Docker notices no end of a command whose output nobody reads."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                if not self._socket.recv(_CHUNK):
                    return
            except OSError:  # the time is up, or the connection broke
                return

    def close(self) -> None:
        self._response.close()

    def _read(self, size: int, deadline: float | None, stall_seconds: float | None) -> bytes:
        limits = [] if stall_seconds is None else [stall_seconds]
        if deadline is not None:
            limits.append(deadline - time.monotonic())
        if limits and min(limits) <= 0:
            raise TimeoutError
        self._socket.settimeout(min(limits) if limits else None)
        chunk: bytes = self._reader.read1(size)
        return chunk


def _exit_code(api: APIClient, exec_id: str, wait_seconds: float) -> int | None:
    end = time.monotonic() + wait_seconds
    while True:
        state = api.exec_inspect(exec_id)
        if not state["Running"] and state["ExitCode"] is not None:
            return int(state["ExitCode"])
        if time.monotonic() >= end:
            return None
        time.sleep(0.05)


def _kill(api: APIClient, stream: _Stream, container_id: str, exec_id: str, marker: str) -> bool:
    """Kill whatever carries the marker; True when the exec has ended.

    First as the user that the command ran as (root without CAP_SYS_PTRACE may not read another user's environment),
    then as privileged root (the command may have changed its user), at last from outside, where its pid is visible.
    """
    if not api.exec_inspect(exec_id)["Running"]:
        return True
    user = str(api.exec_inspect(exec_id).get("ProcessConfig", {}).get("user", ""))
    for as_user, privileged in ((user, False), ("0", True)):
        killer = ["sh", "-c", _KILL_SCRIPT, "sh", marker]
        _try_exec(api, container_id, killer, user=as_user, privileged=privileged)
        stream.drain(_KILL_WAIT_SECONDS)
        if _exit_code(api, exec_id, 1.0) is not None:
            return True
    _kill_visible(int(api.exec_inspect(exec_id).get("Pid") or 0), marker)
    stream.drain(_KILL_WAIT_SECONDS)
    return _exit_code(api, exec_id, _KILL_WAIT_SECONDS) is not None


def _try_exec(api: APIClient, container_id: str, command: list[str], *, user: str, privileged: bool) -> None:
    from docker.errors import APIError  # noqa: PLC0415 - slow to import, and only needed here

    try:
        created = api.exec_create(container_id, command, user=user, privileged=privileged)
        api.exec_start(created["Id"], detach=True)
    except APIError:  # no shell, no privileged exec here: the next way is tried
        return


def _kill_visible(pid: int, marker: str) -> None:
    """Kill a process that this namespace can see, having made sure that it is the one."""
    try:
        if pid > 1 and marker.encode() in Path(f"/proc/{pid}/environ").read_bytes():
            os.kill(pid, signal.SIGKILL)
    except OSError:
        return
