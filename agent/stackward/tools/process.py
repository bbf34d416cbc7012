"""Runs other programs; the only module that imports subprocess.

Commands are argv lists of str or bytes, never a shell string. A command ends with us: the kernel kills it when its parent dies
(`setpriv --pdeathsig`), so that a killed run leaves no rsync writing behind its successor's back. It leads a session of its
own, of which nothing is left when it has ended or is killed, and a Ctrl-C in a terminal reaches us alone, who end it in our
order. A command times out when it stalls (no output, no CPU time and no I/O in its process tree for `stall_seconds`), not by
the wall clock.
"""

from __future__ import annotations

import os
import selectors
import shlex
import signal
import subprocess
import time
from collections import deque
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from stackward.core.errors import StackwardError
from stackward.tools import sessions
from stackward.tools.process_output import Tail, read_tail
from stackward.tools.process_watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

Argument = str | bytes | os.PathLike[str]
STALL_SECONDS = 600.0
_CHUNK = 1 << 16
_TERM_SECONDS = 5.0


class CommandError(StackwardError):
    """A program failed. `returncode` is negative for a signal, as in subprocess.

    `stderr_tail` is the last lines of what it said; `stderr_head` the first one, where `run` ran it.
    """

    def __init__(
        self, argv: Sequence[Argument], returncode: int, stderr_tail: str, *, why: str = "", stderr_head: str = ""
    ) -> None:
        self.argv = [os.fsdecode(part) for part in argv]
        self.returncode = returncode
        self.stderr_tail = stderr_tail
        self.stderr_head = stderr_head
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
    memory_bytes: int | None = None,
    on_stdout: Callable[[bytes], None] | None = None,
) -> Completed:
    """Run to the end and return its output (or hand it to `on_stdout` in chunks, and return none).

    `time_limit_seconds` is for what must not take longer even while it gets on (a stack stands still meanwhile).
    `memory_bytes` bounds what each of its processes can allocate (RLIMIT_DATA: a Go program reserves far more addresses).

    Raises:
        TimeLimitError: it took longer than that, and was killed.
        CommandError: its exit code is not in `ok`, it stalled, or it could not be started.
    """
    chunks: list[bytes] = []
    with _started(
        argv, stdin=stdin, cwd=cwd, environment=environment, stdout=subprocess.PIPE, memory_bytes=memory_bytes
    ) as child:
        data = stdin if isinstance(stdin, bytes) else None
        deadline = time.monotonic() + time_limit_seconds if time_limit_seconds is not None else float("inf")
        said = _pump(child, argv, on_stdout or chunks.append, data, Watch(child.pid, stall_seconds, deadline))
        returncode = _ended(child)
    if returncode not in ok:
        raise CommandError(argv, returncode, said.text, stderr_head=said.head)
    return Completed(returncode, b"".join(chunks), said.text)


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
    terminal: bool = False,
) -> Iterator[IO[bytes]]:
    """The standard output of a running command, to be read to its end; its exit code is checked on leaving.

    A file given as `stderr` holds all that the command had to say, for a caller whom the last lines don't do. `terminal`:
    it may ask at ours (for a passphrase), so it is in our session, and what it starts itself may outlive it.

    Raises:
        CommandError: as `run`, unless the body raised: then the command is killed and the body's error stands.
    """
    with (
        _spooled_stderr(stderr) as errors,
        _started(
            argv, stdin=stdin, cwd=cwd, environment=None, stdout=subprocess.PIPE, stderr=errors, terminal=terminal
        ) as child,
    ):
        assert child.stdout is not None
        if isinstance(stdin, bytes):
            raise TypeError("piped takes a file as stdin; spool bytes first")
        yield child.stdout
        returncode = _ended(child, terminal=terminal)
        if returncode not in ok:
            raise CommandError(argv, returncode, read_tail(errors))


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
            raise CommandError(argv, _ended(child), read_tail(errors), why="it stopped reading") from None
        returncode = _ended(child)
        if returncode != 0:
            raise CommandError(argv, returncode, read_tail(errors))


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


@contextmanager
def _started(
    argv: Sequence[Argument],
    *,
    stdin: bytes | IO[bytes] | int | None,
    cwd: Path | None,
    environment: Mapping[str, str] | None,
    stdout: IO[bytes] | int | None,
    stderr: IO[bytes] | int = subprocess.PIPE,
    memory_bytes: int | None = None,
    terminal: bool = False,
) -> Iterator[subprocess.Popen[bytes]]:
    source = subprocess.PIPE if isinstance(stdin, bytes) else (stdin if stdin is not None else subprocess.DEVNULL)
    limits = ["prlimit", f"--data={memory_bytes}", "--core=0", "--"] if memory_bytes is not None else []
    wrapped = ["setpriv", "--pdeathsig", "KILL", "--", *limits, *argv]
    variables = {**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})}
    try:
        child = subprocess.Popen(
            wrapped,
            stdin=source,
            stdout=stdout if stdout is not None else subprocess.DEVNULL,
            stderr=stderr,
            cwd=cwd,
            env=variables,
            start_new_session=not terminal,
        )
    except OSError as error:
        raise CommandError(argv, 127, str(error), why="could not be started") from error
    try:
        with nullcontext() if terminal else sessions.GUARDIAN.watching(child.pid):
            try:
                yield child
            finally:
                _end(child, terminal=terminal)
    finally:
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        child.wait()


def _ended(child: subprocess.Popen[bytes], *, terminal: bool = False) -> int:
    """Its exit code, once it has ended; nothing that it started is left running then."""
    if child.returncode is None:
        os.waitid(
            os.P_PID, child.pid, os.WEXITED | os.WNOWAIT
        )  # as long as it is a zombie, its number is not given to another
        if not terminal:
            sessions.end(child.pid, signal.SIGKILL)
    return child.wait()


def _end(child: subprocess.Popen[bytes], *, terminal: bool) -> None:
    """End what still runs after the body: first asked, then killed with everything in its session."""
    if child.returncode is not None:
        return
    if os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if terminal:
            child.terminate()
        else:
            sessions.end(child.pid, signal.SIGTERM)
        deadline = time.monotonic() + _TERM_SECONDS
        while time.monotonic() < deadline and child.returncode is None:
            if os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
                break
            time.sleep(0.01)
    _kill(child, terminal=terminal)


def _kill(child: subprocess.Popen[bytes], *, terminal: bool = False) -> int:
    if terminal:
        child.kill()
    else:
        sessions.kill(child.pid)
    return child.wait()


def _pump(
    child: subprocess.Popen[bytes],
    argv: Sequence[Argument],
    on_stdout: Callable[[bytes], None],
    data: bytes | None,
    watch: Watch,
) -> Tail:
    """Feed stdin and read both outputs until they close. Returns what was kept of stderr."""
    assert child.stdout is not None
    assert child.stderr is not None
    errors = Tail()
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
                kind = TimeLimitError if time.monotonic() >= watch.deadline else CommandError
                raise kind(argv, _kill(child), errors.text, why=why, stderr_head=errors.head)
            for key, _mask in events:
                if key.data is None:
                    pending = _write_some(selector, child, pending)
                elif chunk := os.read(key.fd, _CHUNK):
                    key.data(chunk)
                else:
                    selector.unregister(key.fileobj)
    return errors


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
