"""Runs other programs; the only module that imports subprocess.

Commands are argv lists of str or bytes, never a shell string. A command ends with us: the kernel kills it when its parent dies
(`setpriv --pdeathsig`), so that a killed run leaves no rsync writing behind its successor's back. A command times out when
it stalls (no output, no CPU time and no I/O in its process tree for `stall_seconds`), not by the wall clock.
"""

from __future__ import annotations

import os
import selectors
import shlex
import signal
import subprocess
import time
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from stackward.core.errors import StackwardError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

Argument = str | bytes | os.PathLike[str]
STALL_SECONDS = 600.0
_TAIL_LINES = 20
_CHUNK = 1 << 16
_POLL_SECONDS = 5.0


class CommandError(StackwardError):
    """A program failed. `returncode` is negative for a signal, as in subprocess; `stderr_tail` is its last lines."""

    def __init__(self, argv: Sequence[Argument], returncode: int, stderr_tail: str, *, why: str = "") -> None:
        self.argv = [os.fsdecode(part) for part in argv]
        self.returncode = returncode
        self.stderr_tail = stderr_tail
        what = why or (f"killed by signal {-returncode}" if returncode < 0 else f"exit code {returncode}")
        command = shlex.join(self.argv)
        if len(command) > 500:
            command = command[:500] + " …"
        super().__init__(f"{command}: {what}" + (f": {stderr_tail.strip()}" if stderr_tail.strip() else ""))


class TimeLimitError(CommandError):
    """A program took longer than it was given."""


@dataclass(frozen=True, slots=True)
class Completed:
    returncode: int
    stdout: bytes
    stderr_tail: str

    @property
    def text(self) -> str:
        return self.stdout.decode("utf-8", "surrogateescape")


def run(
    argv: Sequence[Argument],
    *,
    stdin: bytes | IO[bytes] | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    ok: Sequence[int] = (0,),
    stall_seconds: float = STALL_SECONDS,
    time_limit_seconds: float | None = None,
    on_stdout: Callable[[bytes], None] | None = None,
) -> Completed:
    """Run to the end and return its output (or hand it to `on_stdout` in chunks, and return none).

    `time_limit_seconds` is for what must not take longer even while it gets on (a stack stands still meanwhile).

    Raises:
        TimeLimitError: it took longer than that, and was killed.
        CommandError: its exit code is not in `ok`, it stalled, or it could not be started.
    """
    chunks: list[bytes] = []
    with _started(argv, stdin=stdin, cwd=cwd, environment=environment, stdout=subprocess.PIPE) as child:
        data = stdin if isinstance(stdin, bytes) else None
        deadline = time.monotonic() + time_limit_seconds if time_limit_seconds is not None else float("inf")
        tail = _pump(child, argv, on_stdout or chunks.append, data, _Watch(child, stall_seconds, deadline))
        returncode = child.wait()
    if returncode not in ok:
        raise CommandError(argv, returncode, tail)
    return Completed(returncode, b"".join(chunks), tail)


def lines(argv: Sequence[Argument], *, separator: bytes = b"\n", **options: object) -> Iterator[bytes]:
    """The records of a command's output, without the separator. The command has ended well when the iterator ends."""
    records: deque[bytes] = deque()
    rest = b""

    def collect(chunk: bytes) -> None:
        nonlocal rest
        parts = (rest + chunk).split(separator)
        rest = parts.pop()
        records.extend(parts)

    run(argv, on_stdout=collect, **options)  # type: ignore[arg-type]
    yield from records
    if rest:
        yield rest


@contextmanager
def piped(
    argv: Sequence[Argument],
    *,
    stdin: bytes | IO[bytes] | None = None,
    cwd: Path | None = None,
    ok: Sequence[int] = (0,),
    stderr: IO[bytes] | None = None,
) -> Iterator[IO[bytes]]:
    """The standard output of a running command, to be read to its end; its exit code is checked on leaving.

    A file given as `stderr` holds all that the command had to say, for a caller whom the last lines don't do.

    Raises:
        CommandError: as `run`, unless the body raised: then the command is killed and the body's error stands.
    """
    with (
        _spooled_stderr(stderr) as errors,
        _started(argv, stdin=stdin, cwd=cwd, environment=None, stdout=subprocess.PIPE, stderr=errors) as child,
    ):
        assert child.stdout is not None
        if isinstance(stdin, bytes):
            raise TypeError("piped takes a file as stdin; spool bytes first")
        yield child.stdout
        returncode = child.wait()
        if returncode not in ok:
            raise CommandError(argv, returncode, _read_tail(errors))


@contextmanager
def fed(argv: Sequence[Argument], *, stdout: IO[bytes] | None = None, cwd: Path | None = None) -> Iterator[IO[bytes]]:
    """The standard input of a running command; it is closed on leaving, and the exit code checked.

    Raises:
        CommandError: it failed, also where the body failed to write because it had died (EPIPE).
    """
    with (
        _spooled_stderr() as errors,
        _started(argv, stdin=subprocess.PIPE, cwd=cwd, environment=None, stdout=stdout, stderr=errors) as child,
    ):
        assert child.stdin is not None
        try:
            yield child.stdin
            child.stdin.close()
        except BrokenPipeError:
            raise CommandError(argv, child.wait(), _read_tail(errors), why="it stopped reading") from None
        returncode = child.wait()
        if returncode != 0:
            raise CommandError(argv, returncode, _read_tail(errors))


class Background:
    """A command that goes on by itself, with our standard output and error. It is not killed when we die."""

    def __init__(self, argv: Sequence[Argument]) -> None:
        try:
            self._child = subprocess.Popen(list(argv), stdin=subprocess.DEVNULL)
        except OSError as error:
            raise CommandError(argv, 127, str(error), why="could not be started") from error
        self.pid = self._child.pid

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._child.poll()

    def terminate(self) -> None:
        self._child.terminate()

    def kill(self) -> None:
        """End it, and wait until it has."""
        self._child.kill()
        self._child.wait()


@contextmanager
def _spooled_stderr(given: IO[bytes] | None = None) -> Iterator[IO[bytes]]:
    if given is not None:
        yield given
        return
    with open(os.memfd_create("stderr", os.MFD_CLOEXEC), "w+b") as file:
        yield file


def _read_tail(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _CHUNK))
    kept = file.read().decode("utf-8", "backslashreplace").splitlines()[-_TAIL_LINES:]
    return "\n".join(kept)


@contextmanager
def _started(
    argv: Sequence[Argument],
    *,
    stdin: bytes | IO[bytes] | int | None,
    cwd: Path | None,
    environment: Mapping[str, str] | None,
    stdout: IO[bytes] | int | None,
    stderr: IO[bytes] | int = subprocess.PIPE,
) -> Iterator[subprocess.Popen[bytes]]:
    source = subprocess.PIPE if isinstance(stdin, bytes) else (stdin if stdin is not None else subprocess.DEVNULL)
    wrapped = ["setpriv", "--pdeathsig", "KILL", "--", *argv]
    variables = {**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})}
    try:
        child = subprocess.Popen(
            wrapped,
            stdin=source,
            stdout=stdout if stdout is not None else subprocess.DEVNULL,
            stderr=stderr,
            cwd=cwd,
            env=variables,
        )
    except OSError as error:
        raise CommandError(argv, 127, str(error), why="could not be started") from error
    try:
        yield child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        child.wait()


@dataclass(slots=True)
class _Watch:
    """Ends a child that stalls, or takes longer than it was given. `deadline` is on the monotonic clock."""

    child: subprocess.Popen[bytes]
    stall_seconds: float
    deadline: float
    _seen: float = field(default_factory=time.monotonic)
    _activity: int = -1

    @property
    def patience(self) -> float:
        """How long one wait for output may be, in seconds."""
        return min(_POLL_SECONDS, max(0.0, self.deadline - time.monotonic()))

    def verdict(self, *, output: bool) -> str:
        """Why the child has to end, or ""; `output` says that it has just said something."""
        now = time.monotonic()
        if now >= self.deadline:
            return "not done in the time it was given"
        if output:
            self._seen = now
        elif (activity := _activity(self.child.pid)) != self._activity:
            self._activity, self._seen = activity, now
        elif now - self._seen > self.stall_seconds:
            return f"stalled for {self.stall_seconds:.0f} s"
        return ""


def _pump(
    child: subprocess.Popen[bytes],
    argv: Sequence[Argument],
    on_stdout: Callable[[bytes], None],
    data: bytes | None,
    watch: _Watch,
) -> str:
    """Feed stdin and read both outputs until they close. Returns the last lines of stderr."""
    assert child.stdout is not None
    assert child.stderr is not None
    errors = _Tail()
    pending = memoryview(data or b"")
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ, on_stdout)
        selector.register(child.stderr, selectors.EVENT_READ, errors.take)
        if data is not None and child.stdin is not None:
            os.set_blocking(child.stdin.fileno(), False)
            selector.register(child.stdin, selectors.EVENT_WRITE)
        while selector.get_map():
            events = selector.select(watch.patience)
            if why := watch.verdict(output=bool(events)):
                child.kill()
                kind = TimeLimitError if time.monotonic() >= watch.deadline else CommandError
                raise kind(argv, child.wait(), errors.text, why=why)
            for key, _mask in events:
                if key.data is None:
                    pending = _write_some(selector, child, pending)
                elif chunk := os.read(key.fd, _CHUNK):
                    key.data(chunk)
                else:
                    selector.unregister(key.fileobj)
    return errors.text


class _Tail:
    """The last lines of what was said."""

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque(maxlen=_TAIL_LINES)
        self._partial = b""

    def take(self, chunk: bytes) -> None:
        *whole, partial = (self._partial + chunk).split(b"\n")
        self._lines.extend(whole)
        self._partial = partial[-_CHUNK:]

    @property
    def text(self) -> str:
        return b"\n".join([*self._lines, self._partial]).decode("utf-8", "backslashreplace").strip("\n")


def _write_some(selector: selectors.BaseSelector, child: subprocess.Popen[bytes], pending: memoryview) -> memoryview:
    assert child.stdin is not None
    try:
        pending = pending[os.write(child.stdin.fileno(), pending[:_CHUNK]) :]
    except BrokenPipeError:
        pending = memoryview(b"")
    if not pending:
        selector.unregister(child.stdin)
        child.stdin.close()
    return pending


def _activity(pid: int) -> int:
    """CPU ticks and bytes moved by a process tree so far: a number that changes while it works."""
    total = 0
    todo = [pid]
    while todo:
        one = todo.pop()
        try:
            fields = Path(f"/proc/{one}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
            for line in Path(f"/proc/{one}/io").read_text(encoding="ascii").splitlines():
                name, _, value = line.partition(":")
                if name in ("rchar", "wchar"):
                    total += int(value)
            for task in os.listdir(f"/proc/{one}/task"):
                children = Path(f"/proc/{one}/task/{task}/children").read_text(encoding="ascii").split()
                todo.extend(int(child) for child in children)
        except (OSError, IndexError, ValueError):
            continue
    return total
