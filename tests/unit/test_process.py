from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stackward.tools import process


def test_output_comes_back_and_stdin_goes_in_whole() -> None:
    data = b"\x00\xff" * 1_000_000
    assert process.run(["cat"], stdin=data).stdout == data


def test_a_failure_shows_the_command_and_the_last_lines_of_stderr() -> None:
    with pytest.raises(process.CommandError, match=r"(?s)exit code 3.*line 99") as caught:
        process.run(["sh", "-c", "for i in $(seq 99); do echo line $i >&2; done; exit 3"])
    assert caught.value.returncode == 3
    assert "line 80\n" in caught.value.stderr_tail
    assert "line 10\n" not in caught.value.stderr_tail


def test_a_program_that_is_not_there_is_a_command_error() -> None:
    with pytest.raises(process.CommandError):
        process.run(["no-such-program-anywhere"])


def test_a_command_that_stalls_is_ended() -> None:
    began = time.monotonic()
    with pytest.raises(process.CommandError, match="stalled"):
        process.run(["sleep", "600"], stall_seconds=0.1)
    assert time.monotonic() - began < 60


def test_a_command_that_works_without_a_word_is_not_a_stall() -> None:
    busy = "import time; end = time.monotonic() + 11\nwhile time.monotonic() < end: pass"
    assert process.run([sys.executable, "-c", busy], stall_seconds=6).returncode == 0


def test_a_time_limit_ends_what_is_still_at_work() -> None:
    with pytest.raises(process.TimeLimitError):
        process.run(["sh", "-c", "while :; do echo on; done"], time_limit_seconds=0.3)


def test_a_command_dies_with_us(tmp_path: Path) -> None:
    script = (
        "import os, sys, threading, time\n"
        f"sys.path[:0] = {sys.path!r}\n"
        "from stackward.tools import process\n"
        "argv = ['sh', '-c', 'echo $$ > pid; exec sleep 600']\n"
        "threading.Timer(1.5, lambda: os.kill(os.getpid(), 9)).start()\n"
        "process.run(argv)\n"
    )
    with pytest.raises(process.CommandError):
        process.run([sys.executable, "-c", script], cwd=tmp_path)
    pid = (tmp_path / "pid").read_text().strip()
    for _ in range(50):
        if not Path(f"/proc/{pid}").exists() or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
            return
        time.sleep(0.1)
    pytest.fail("the command outlived its parent")


def test_records_are_split_at_the_separator_alone() -> None:
    assert list(process.lines(["printf", r"a\nb\0c"], separator=b"\0")) == [b"a\nb", b"c"]


def test_piped_reports_the_failure_that_comes_after_the_output() -> None:
    with (
        pytest.raises(process.CommandError, match="too late"),
        process.piped(["sh", "-c", "echo out; echo too late >&2; exit 1"]) as out,
    ):
        assert out.read() == b"out\n"


def test_fed_reports_a_reader_that_died() -> None:
    with (
        pytest.raises(process.CommandError, match="no appetite"),
        process.fed(["sh", "-c", "echo no appetite >&2; exit 1"]) as sink,
    ):
        sink.write(b"x" * 10_000_000)


# A program that starts others, as docker starts its plugin, and says their numbers: one in its group, one in a group of
# its own.
FAMILY = "sleep 600 & echo $!; set -m; sleep 600 & echo $!; set +m; "


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def none_left(pids: list[int]) -> bool:
    for _ in range(600):
        if not any(map(alive, pids)):
            return True
        time.sleep(0.05)
    for pid in filter(alive, pids):
        os.kill(pid, signal.SIGKILL)
    return False


@pytest.mark.parametrize("limits", [{"time_limit_seconds": 1.0}, {"stall_seconds": 0.1}])
def test_a_command_is_killed_with_all_that_it_started(limits: dict[str, float]) -> None:
    said: list[bytes] = []
    with pytest.raises(process.CommandError):
        process.run(["sh", "-c", FAMILY + "trap '' TERM; wait"], on_stdout=said.append, **limits)
    pids = [int(pid) for pid in b"".join(said).split()]
    assert len(pids) == 2
    assert none_left(pids)


def test_an_error_while_its_output_is_read_ends_all_that_it_started() -> None:
    pids: list[int] = []
    with pytest.raises(ZeroDivisionError), process.piped(["sh", "-c", FAMILY + "wait"]) as out:
        pids += [int(out.readline()), int(out.readline())]
        raise ZeroDivisionError
    assert none_left(pids)


def test_nothing_is_left_of_a_command_that_ended_well() -> None:
    done = process.run(["sh", "-c", "sleep 600 >&- 2>&- & echo $!"])
    assert none_left([int(done.stdout)])


def test_what_a_command_started_dies_with_us_too(tmp_path: Path) -> None:
    """Killed as by the kernel when memory is short: nothing of ours runs then but the guardian."""
    script = (
        "import os, sys\n"
        f"sys.path[:0] = {sys.path!r}\n"
        "from stackward.tools import process\n"
        f"with process.piped(['sh', '-c', {FAMILY!r} + 'wait']) as out:\n"
        "    print(out.readline().decode() + out.readline().decode(), flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=False)
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    assert none_left(pids)


def test_a_guardian_that_was_killed_is_replaced(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        f"sys.path[:0] = {sys.path!r}\n"
        "from stackward.tools import process\n"
        "process.run(['true'])\n"
        "(guardian,) = open(f'/proc/self/task/{os.getpid()}/children').read().split()\n"
        "os.kill(int(guardian), 9)\n"
        "os.waitpid(int(guardian), 0)\n"
        f"with process.piped(['sh', '-c', {FAMILY!r} + 'wait']) as out:\n"
        "    print(out.readline().decode() + out.readline().decode(), flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=False)
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    assert none_left(pids)


def test_a_ctrl_c_reaches_us_and_no_command(tmp_path: Path) -> None:
    """On a terminal it goes to all of its foreground: what was begun to put things right would be cut short."""
    script = (
        "import sys\n"
        f"sys.path[:0] = {sys.path!r}\n"
        "from stackward.tools import process, signals\n"
        "with signals.interruptible():\n"
        "    with signals.deferred():\n"
        "        print('ready', flush=True)\n"
        "        print(process.run(['sh', '-c', 'sleep 2; echo put right']).text, flush=True)\n"
    )
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", script])
    said = b""
    with open(terminal, "r+b", buffering=0) as file:
        while b"ready" not in said:
            said += file.read(1000)
        time.sleep(0.5)
        file.write(b"\x03")
        try:
            while chunk := file.read(1000):
                said += chunk
        except OSError:  # the terminal of a process that has ended
            pass
    os.waitpid(child, 0)
    assert b"put right" in said
    assert b"Interrupted" in said


def test_a_command_gets_no_more_memory_than_it_is_given() -> None:
    hungry = [sys.executable, "-c", "x = bytearray(1 << 29); print(len(x))"]
    assert process.run(hungry).text == f"{1 << 29}\n"
    with pytest.raises(process.CommandError, match="MemoryError") as caught:
        process.run(hungry, memory_bytes=256 << 20)
    assert re.match(r"Traceback", caught.value.stderr_head)
