"""Snapshots of a real volume: what is in them, how they go, and what holds them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import stackward
from stackward.core.errors import RefusedError, StackwardError
from stackward.core.model import Keep
from stackward.steps.volume import nightly_snapshot as nightly
from stackward.steps.volume import snapshots
from stackward.tools import btrfs, filesystem

pytestmark = pytest.mark.btrfs
NOW = datetime(2026, 11, 21, 0, 30, tzinfo=UTC)


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def every_path(directory: Path) -> set[str]:
    return {os.path.relpath(os.path.join(here, n), directory) for here, d, f in os.walk(directory) for n in d + f}


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A volume of its own, to be filled or made read-only."""
    image, point = tmp_path / "small.img", tmp_path / "small"
    subprocess.run(["truncate", "-s", "120M", image], check=True)
    subprocess.run(["mkfs.btrfs", "-q", "--mixed", image], check=True, capture_output=True)
    point.mkdir()
    subprocess.run(["mount", "-o", "loop", image, point], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)


def test_a_snapshot_holds_the_volume_as_it_was_with_what_is_nested(volume: Path) -> None:
    (volume / "a").write_text("then")
    for nested in ("shop", "shop/inner", "wiki"):
        btrfs.create_subvolume(volume / nested)
        (volume / nested / "f").write_text(nested)
    made = snapshots.create(volume, NOW)
    (volume / "a").write_text("now")
    (volume / "shop/inner/f").unlink()
    assert made.name == "20261121_003000"
    assert every_path(made.path) == {"a", "shop", "shop/f", "shop/inner", "shop/inner/f", "wiki", "wiki/f"}
    assert (made.path / "a").read_text() == "then"
    for one in ("", "shop", "shop/inner", "wiki"):
        assert btrfs.is_read_only(made.path / one)


def test_ours_foreign_snapshots_and_what_the_settings_leave_out_are_not_in_it(volume: Path) -> None:
    btrfs.create_subvolume(volume / "shop")
    (volume / "shop/f").write_text("x")
    btrfs.snapshot(volume / "shop", volume / "of-snapper", read_only=True)
    btrfs.create_subvolume(volume / "docker")
    btrfs.create_subvolume(volume / "docker/layer")
    btrfs.snapshot(volume, volume / ".nightly", read_only=False)
    snapshots.create(volume, NOW)
    made = snapshots.create(volume, NOW + timedelta(hours=1), skip=("/docker/",))
    assert every_path(made.path) == {"shop", "shop/f"}


def test_a_snapshot_is_dated_by_its_name_and_two_of_one_second_do_not_meet(volume: Path) -> None:
    one, two = snapshots.create(volume, NOW), snapshots.create(volume, NOW)
    named = snapshots.create(volume, NOW, label="before-upgrade")
    found = snapshots.listed(volume, UTC)
    assert [(s.name, s.when, s.label) for s in found] == [
        (one.name, NOW, ""),
        (named.name, NOW, "before-upgrade"),
        (two.name, NOW + timedelta(seconds=1), ""),
    ]
    for wanted, expected in (
        ("before-upgrade", named),
        ("2026-11-21", two),
        ("2026-11-21 00:30", two),
        (one.name, one),
    ):
        assert snapshots.choose(found, wanted) == expected
    with pytest.raises(StackwardError, match="no snapshot tomorrow"):
        snapshots.choose(found, "tomorrow")


@pytest.mark.parametrize("label", ["a/b", "../x", "-rf", "", "ü", "x" * 65, "a\nb"])
def test_a_label_that_is_no_file_name_is_refused(volume: Path, label: str) -> None:
    if not label:
        return
    with pytest.raises(ValueError, match="must be"):
        snapshots.create(volume, NOW, label=label)
    assert not snapshots.home_of(volume).exists()


def test_nested_subvolumes_that_come_and_go_meanwhile_leave_no_empty_place(volume: Path) -> None:
    """Each nested one holds a file from before it has its name, so one that is in the snapshot has it, too."""
    btrfs.create_subvolume(volume / "live")
    btrfs.create_subvolume(volume / "live/template")
    (volume / "live/template/f").write_text("x")
    stop = threading.Event()

    def restless() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            btrfs.snapshot(volume / "live/template", volume / f"live/made{number}", read_only=False)

    thread = threading.Thread(target=restless)
    thread.start()
    try:
        made = [snapshots.create(volume, NOW + timedelta(minutes=minute)) for minute in range(3)]
    finally:
        stop.set()
        thread.join()
    for one in made:
        for place in (one.path / "live").iterdir():
            assert (place / "f").read_text() == "x"
            assert place.lstat().st_ino == 256


def test_the_grid_keeps_with_reasons_and_named_ones_stay(volume: Path) -> None:
    for hours in range(0, 24 * 20, 12):
        snapshots.create(volume, NOW - timedelta(hours=hours), label="mine" if hours == 12 * 19 else "")
    decisions = snapshots.plan(snapshots.listed(volume, UTC), Keep(daily=3, weekly=2), NOW)
    kept = {decision.item.key: decision.reasons for decision in decisions if decision.keep}
    assert sorted(kept) == [
        "20261111_123000-mine",
        "20261115_123000",
        "20261119_123000",
        "20261120_123000",
        "20261121_003000",
    ]
    assert "newest of 2026-11-20 (daily 2 of 3)" in kept["20261120_123000"]
    assert all(decision.reasons for decision in decisions)


def test_a_named_one_of_a_day_takes_not_the_place_of_the_nightly_one(volume: Path) -> None:
    for day in range(3):
        snapshots.create(volume, NOW - timedelta(days=day))
    snapshots.create(volume, NOW - timedelta(days=1) + timedelta(hours=9), label="mine")
    decisions = snapshots.plan(snapshots.listed(volume, UTC), Keep(daily=2), NOW)
    assert {one.item.key: one.keep for one in decisions} == {
        "20261119_003000": False,
        "20261120_003000": True,
        "20261120_093000-mine": True,
        "20261121_003000": True,
    }


def test_a_name_counts_before_a_label_and_a_label_before_a_date(volume: Path) -> None:
    """A label that looks like a date can be there from before those were refused."""
    old = snapshots.create(volume, NOW - timedelta(days=1), label="old")
    snapshots.create(volume, NOW)
    looks = old.path.rename(old.path.with_name("20261120_003000-20261121"))
    known = snapshots.listed(volume, UTC)
    assert snapshots.choose(known, "20261121").path == looks
    assert snapshots.choose(known, "2026-11-21").name == "20261121_003000"


def test_a_deleted_snapshot_is_gone_and_its_space_with_it(volume: Path) -> None:
    btrfs.create_subvolume(volume / "shop")
    made = snapshots.create(volume, NOW)
    gone = snapshots.delete(made.path, volume=volume)
    assert gone == snapshots.Deleted(cleaned=True)
    assert names(snapshots.home_of(volume)) == []


def test_a_deleted_snapshot_that_a_process_uses_names_it(volume: Path) -> None:
    btrfs.create_subvolume(volume / "shop")
    (volume / "shop/f").write_text("x")
    made = snapshots.create(volume, NOW)
    with (made.path / "shop/f").open() as file:
        user = subprocess.Popen(["sleep", "60"], cwd=made.path / "shop", stdin=file)
    try:
        gone = snapshots.delete(made.path, volume=volume, mounted=lambda _path: ["container shop-db"], wait_seconds=1)
    finally:
        user.kill()
        user.wait()
    assert not gone.cleaned
    told = "; ".join(gone.held_by)
    assert "container shop-db" in told
    assert f"sleep (process {user.pid}): open file" in told
    assert f"sleep (process {user.pid}): working directory" in told


def test_a_snapshot_that_is_being_sent_is_deleted_when_that_has_ended(volume: Path) -> None:
    (volume / "big").write_bytes(os.urandom(8 << 20))
    made = snapshots.create(volume, NOW)
    with subprocess.Popen(["btrfs", "send", "-q", made.path], stdout=subprocess.PIPE) as sending:
        assert sending.stdout is not None
        sending.stdout.read(1)
        timer = threading.Timer(1.5, sending.kill)
        timer.start()
        gone = snapshots.delete(made.path, volume=volume)
        timer.join()
    assert gone.cleaned
    assert not made.path.exists()


def test_what_a_killed_run_left_is_not_listed_and_goes(volume: Path) -> None:
    snapshots.create(volume, NOW)
    left = snapshots.home_of(volume) / ".incoming-x"
    btrfs.snapshot(volume, left, read_only=True)
    assert len(snapshots.listed(volume, UTC)) == 1
    snapshots.sweep(volume)
    assert names(snapshots.home_of(volume)) == ["20261121_003000"]


def test_a_volume_that_cannot_be_snapshotted_is_refused_with_the_reason(small: Path, tmp_path: Path) -> None:
    (small / "directory").mkdir()
    for volume, why in (
        (tmp_path / "none", "there is no"),
        (tmp_path, "not on Btrfs"),
        (small / "directory", "directory of a larger subvolume"),
    ):
        with pytest.raises(RefusedError, match=why):
            snapshots.create(volume, NOW)
        assert why in snapshots.usable(volume)
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    with pytest.raises(RefusedError, match="read-only"):
        snapshots.create(small, NOW)


def test_on_a_full_volume_nothing_is_left_of_the_attempt(small: Path) -> None:
    with pytest.raises(OSError, match="No space"), (small / "filler").open("wb") as file:
        while True:
            file.write(os.urandom(1 << 20))
            file.flush()
    for number in range(100_000):  # whatever room for metadata is left
        try:
            (small / f"f{number}").write_bytes(b"x" * 2000)
        except OSError:
            break
    with pytest.raises(StackwardError, match="no room"):
        for minute in range(200):
            snapshots.create(small, NOW + timedelta(minutes=minute))
    home = snapshots.home_of(small)
    assert not home.exists() or not [name for name in names(home) if name.startswith(".incoming")]


# .nightly


class Staging:
    """Stands for the staging target; `log` says what it saw of `.nightly` when."""

    def __init__(self, volume: Path) -> None:
        self.volume = volume
        self.log: list[str] = []

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self.log.append(f"stopped on {self._seen()}")
        try:
            yield
        finally:
            self.log.append(f"started on {self._seen()}")

    def _seen(self) -> str:
        file = self.volume / ".nightly/shop/f"
        return file.read_text() if file.exists() else "nothing"


def volume_with(volume: Path, text: str) -> None:
    if not (volume / "shop").exists():
        btrfs.create_subvolume(volume / "shop")
    (volume / "shop/f").write_text(text)


def test_the_nightly_is_made_anew_swapped_while_staging_stands_still_and_writable(volume: Path) -> None:
    staging = Staging(volume)
    for text in ("one", "two"):
        volume_with(volume, text)
        assert nightly.rebuild_nightly(volume, staging()).cleaned
    assert staging.log == ["stopped on nothing", "started on one", "stopped on one", "started on two"]
    (volume / ".nightly/shop/f").write_text("staging's own")
    assert (volume / "shop/f").read_text() == "two"
    assert every_path(volume / ".nightly") == {"shop", "shop/f"}
    assert names(volume) == [".nightly", "shop"]


def test_where_the_new_one_cannot_be_made_staging_goes_on_undisturbed(small: Path) -> None:
    staging = Staging(small)
    volume_with(small, "one")
    nightly.rebuild_nightly(small, staging())
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    with pytest.raises(RefusedError):
        nightly.rebuild_nightly(small, staging())
    assert staging.log == ["stopped on nothing", "started on one"]
    assert (small / ".nightly/shop/f").read_text() == "one"


def test_where_staging_cannot_be_stopped_the_nightly_stays_as_it_was(volume: Path) -> None:
    volume_with(volume, "one")
    nightly.rebuild_nightly(volume, Staging(volume)())
    volume_with(volume, "two")

    @contextmanager
    def stubborn() -> Iterator[None]:
        raise StackwardError("it does not stop")
        yield

    with pytest.raises(StackwardError, match="does not stop"):
        nightly.rebuild_nightly(volume, stubborn())
    assert (volume / ".nightly/shop/f").read_text() == "one"
    assert names(volume) == [".nightly", "shop"]


@pytest.mark.parametrize("left", ["half-deleted subvolume", "directory", "file", "nothing", "an old new one"])
def test_whatever_a_crash_left_the_next_rebuild_makes_a_whole_one(volume: Path, left: str) -> None:
    volume_with(volume, "one")
    place = volume / ".nightly"
    if left == "half-deleted subvolume":
        btrfs.snapshot_all(volume, place, lambda _: True, read_only=False)
        subprocess.run(["btrfs", "subvolume", "delete", place / "shop"], check=True, capture_output=True)
    elif left == "directory":  # of `rm -r`, as the unit's second attempt
        (place / "shop").mkdir(parents=True)
    elif left == "file":
        place.write_text("x")
    elif left == "an old new one":
        nightly.rebuild_nightly(volume, Staging(volume)())
        btrfs.snapshot_all(volume, volume / ".nightly.new", lambda _: True, read_only=False)
    nightly.rebuild_nightly(volume, Staging(volume)())
    assert (place / "shop/f").read_text() == "one"
    assert filesystem.is_subvolume(place)
    assert names(volume) == [".nightly", "shop"]


def test_an_old_nightly_that_is_still_in_use_does_not_keep_the_new_one_from_its_place(volume: Path) -> None:
    volume_with(volume, "one")
    nightly.rebuild_nightly(volume, Staging(volume)())
    volume_with(volume, "two")
    user = subprocess.Popen(["sleep", "60"], cwd=volume / ".nightly/shop")
    try:
        old = nightly.rebuild_nightly(volume, Staging(volume)(), wait_seconds=1)
    finally:
        user.kill()
        user.wait()
    assert (volume / ".nightly/shop/f").read_text() == "two"
    assert any("sleep" in one for one in old.held_by)


CRASH = """
import sys
sys.path[:0] = sys.argv[3].split(":")
from contextlib import contextmanager
from pathlib import Path
from stackward.steps import crashpoints
from stackward.steps.volume import snapshots
from stackward.steps.volume import nightly_snapshot as nightly
from test_snapshots import NOW
volume, point = Path(sys.argv[1]), sys.argv[2]
reached = lambda name: crashpoints.reach(name, point)
@contextmanager
def around():
    (volume / "standing-still").write_text("")
    yield
    (volume / "standing-still").unlink()
snapshots.create(volume, NOW, reached=reached)
nightly.rebuild_nightly(volume, around(), reached=reached)
"""


@pytest.mark.parametrize("first", [True, False], ids=["the first", "another"])
@pytest.mark.parametrize(
    ("point", "seen", "still"),
    [
        ("snapshot-made", "one", False),
        ("nightly-made", "one", False),
        ("nightly-swapped", "two", True),
        ("nightly-resumed", "two", False),
    ],
)
def test_a_kill_leaves_last_nights_or_tonights(volume: Path, point: str, seen: str, still: bool, first: bool) -> None:
    volume_with(volume, "one")
    if not first:
        nightly.rebuild_nightly(volume, Staging(volume)())
    volume_with(volume, "two")
    paths = f"{Path(__file__).parent}:{Path(__file__).parents[1]}:{Path(stackward.__file__).parents[1]}"
    died = subprocess.run([sys.executable, "-c", CRASH, volume, point, paths], capture_output=True, check=False)
    assert died.returncode == -9, died.stderr
    if not first or seen == "two":
        assert (volume / ".nightly/shop/f").read_text() == seen
    assert (volume / "standing-still").exists() == still
    snapshots.sweep(volume)
    nightly.clear(volume)
    assert [name for name in names(volume) if name.startswith(".nightly")] == [".nightly"] * (
        not first or seen == "two"
    )
    assert [n for n in names(snapshots.home_of(volume)) if n.startswith(".")] == []
    nightly.rebuild_nightly(volume, Staging(volume)())
    assert (volume / ".nightly/shop/f").read_text() == "two"
