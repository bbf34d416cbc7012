from __future__ import annotations

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
