"""Undo records: written before the act, taken back exactly when their owner is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stackward.core.errors import Interrupted
from stackward.steps.undo import Step, Undo, WayBackError
from stackward.tools.signals import interruptible


@pytest.fixture
def undo(tmp_path: Path) -> Undo:
    return Undo(tmp_path / "undo", None)


@pytest.fixture
def moved(tmp_path: Path) -> Step:
    """A file that an act moves from `place` to `aside`."""
    (tmp_path / "place").write_text("precious")
    return Step("rename", str(tmp_path / "aside"), str(tmp_path / "place"))


def records(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "undo").iterdir())


def test_the_record_is_on_disk_while_the_body_runs_and_gone_after(undo: Undo, moved: Step, tmp_path: Path) -> None:
    with undo.promised("moving", [moved]):
        (record,) = records(tmp_path)
        assert json.loads(record.read_text())["reason"] == "moving"
        os.rename(moved.detail, moved.subject)
    assert records(tmp_path) == []
    assert Path(moved.detail).read_text() == "precious"


def test_a_record_counts_as_open_only_without_its_owner(undo: Undo, moved: Step, tmp_path: Path) -> None:
    assert undo.open_count() == 0
    with undo.promised("moving", [moved]):
        assert undo.open_count() == 0
        (record,) = records(tmp_path)
        record.with_name("0-left.json").write_bytes(record.read_bytes())
        assert undo.open_count() == 1
    assert [path.name for path in records(tmp_path)] == ["0-left.json"]


def test_the_way_back_is_taken_when_the_body_fails(undo: Undo, moved: Step, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), undo.promised("moving", [moved], only_on_error=True):
        os.rename(moved.detail, moved.subject)
        raise ZeroDivisionError
    assert Path(moved.detail).read_text() == "precious"
    assert records(tmp_path) == []


def test_what_went_well_stays_where_only_an_error_undoes(undo: Undo, moved: Step, tmp_path: Path) -> None:
    with undo.promised("moving", [moved], only_on_error=True):
        os.rename(moved.detail, moved.subject)
    assert Path(moved.subject).read_text() == "precious"
    assert records(tmp_path) == []


def test_what_stands_in_the_way_back_is_kept_beside(undo: Undo, moved: Step, tmp_path: Path) -> None:
    with undo.promised("moving", [moved]):
        os.rename(moved.detail, moved.subject)
        Path(moved.detail).write_text("half restored")
    assert Path(moved.detail).read_text() == "precious"
    assert (tmp_path / "aside.undone").read_text() == "half restored"


def test_on_a_disk_that_is_not_mounted_the_way_back_stays_open(undo: Undo, moved: Step, tmp_path: Path) -> None:
    with pytest.raises(WayBackError, match="is its disk mounted"), undo.promised("a test", [moved]):
        os.rename(moved.detail, tmp_path / "unmounted")
    assert len(records(tmp_path)) == 1
    os.rename(tmp_path / "unmounted", moved.subject)
    assert undo.take_back_open() == ["took back what a run left: a test"]
    assert os.path.exists(moved.detail)


def test_a_living_owners_record_is_left_alone(undo: Undo, moved: Step, tmp_path: Path) -> None:
    with undo.promised("moving", [moved]):
        os.rename(moved.detail, moved.subject)
        assert Undo(tmp_path / "undo", None).take_back_open() == []
        assert Path(moved.subject).exists()


def crash(tmp_path: Path, point: str = "") -> None:
    """A process that moves two files, and dies; or one that dies while it takes the way back of a dead one."""
    script = (
        "import os, sys\n"
        f"sys.path[:0] = {sys.path!r}\n"
        "from pathlib import Path\n"
        "from stackward.steps.undo import Step, Undo\n"
        f"here = Path({str(tmp_path)!r})\n"
        f"undo = Undo(here / 'undo', None, {point!r})\n"
        "if undo.take_back_open(): sys.exit(5)\n"
        "steps = [Step('rename', str(here / f'aside{n}'), str(here / f'place{n}')) for n in (1, 2)]\n"
        "with undo.promised('moving two', steps):\n"
        "    for step in steps: os.rename(step.detail, step.subject)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9


def test_a_dead_owners_record_is_taken_back_also_when_taking_back_is_killed(undo: Undo, tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"place{number}").write_text(str(number))
    crash(tmp_path)
    assert not (tmp_path / "place1").exists()
    crash(tmp_path, "undo-half")
    assert (tmp_path / "place1").exists()
    assert not (tmp_path / "place2").exists()
    assert undo.take_back_open() == ["took back what a run left: moving two"]
    assert [(tmp_path / f"place{number}").read_text() for number in (1, 2)] == ["1", "2"]
    assert undo.take_back_open() == []


def test_a_step_that_fails_leaves_its_record_and_the_other_steps_are_taken(
    undo: Undo, moved: Step, tmp_path: Path
) -> None:
    container = Step("start", "0123456789ab")  # there is no Docker here
    with pytest.raises(WayBackError, match="0123456789ab"), undo.promised("stopping", [container, moved]):
        os.rename(moved.detail, moved.subject)
    assert Path(moved.detail).read_text() == "precious"
    assert len(records(tmp_path)) == 1
    assert "could not take back" in undo.take_back_open()[0]
    assert len(records(tmp_path)) == 1


def test_a_record_that_cannot_be_read_is_named_and_left(undo: Undo, tmp_path: Path) -> None:
    (tmp_path / "undo").mkdir()
    (tmp_path / "undo" / "x.json").write_text("{")
    assert "x.json" in undo.take_back_open()[0]
    assert (tmp_path / "undo" / "x.json").exists()


class Engine:
    """Notes what it is asked; somebody presses Ctrl-C whenever it starts a container."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def await_stop(self, container: str, _since: float) -> None:
        self.asked.append(f"await {container}")

    def start(self, container: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        self.asked.append(f"start {container}")


def test_a_signal_during_the_way_back_waits_for_its_end(tmp_path: Path) -> None:
    engine = Engine()
    undo = Undo(tmp_path / "undo", engine)
    with (
        pytest.raises(Interrupted),
        interruptible(),
        undo.promised("stopping", [Step("start", "a"), Step("start", "b")]) as stopping,
    ):
        stopping.add("b")
    assert engine.asked == ["start a", "await b", "start b"]
    assert records(tmp_path) == []


def test_whoever_takes_back_a_dead_runs_record_waits_for_every_stop(tmp_path: Path) -> None:
    undo = Undo(tmp_path / "undo", None)
    with pytest.raises(WayBackError), undo.promised("stopping", [Step("start", "a"), Step("start", "b")]):
        pass
    engine = Engine()
    with pytest.raises(Interrupted), interruptible():
        Undo(tmp_path / "undo", engine).take_back_open()
    assert engine.asked == ["await a", "start a", "await b", "start b"]
    assert records(tmp_path) == []
