"""Going back to a snapshot: a stack, a tree, a path, and back again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from btrfs.life import Life, account
from stackward.config import Settings
from stackward.core.errors import RefusedError, SettingsError, StackwardError
from stackward.core.model import JobResult, Outcome, Stack, Tree, TreeKind
from stackward.core.progress import Silent
from stackward.jobs import restore, restore_snapshot
from stackward.jobs.restore_snapshot import Request
from stackward.steps.restore import kept
from stackward.steps.restore.restoring import Means
from stackward.steps.undo import Undo
from stackward.steps.volume import snapshots
from stackward.tools import btrfs, filesystem

pytestmark = pytest.mark.btrfs
NOW = datetime(2026, 11, 21, 0, 30, tzinfo=UTC)


class Shop:
    """A stack with a directory, a subvolume, and a tree elsewhere."""

    def __init__(self, volume: Path, directory: Path, crash_point: str = "") -> None:
        self.volume = volume
        self.settings = Settings(volume=volume, state_dir=directory / "state", crash_point=crash_point)
        self.data, self.database, self.elsewhere = volume / "shop/data", volume / "shop/db", directory / "elsewhere"
        trees = [
            Tree("shop", path.name, kind, path, path, writable=True)
            for path, kind in (
                (self.data, TreeKind.DATA),
                (self.database, TreeKind.BIND),
                (self.elsewhere, TreeKind.BIND),
            )
        ]
        self.stack = Stack("shop", directory / "docker/shop", "shop", trees=tuple(trees))

    def fill(self) -> None:
        self.data.mkdir(parents=True)
        self.elsewhere.mkdir()
        btrfs.create_subvolume(self.database)
        Life(self.data, 3).go_on(60)
        (self.database / "rows").write_text("then")
        (self.data / "file").write_text("then")

    def restore(self, path: str | None = None, run: str = "r1", **more: bool) -> JobResult:
        request = Request("2026-11-21", "shop", path, force=more.pop("force", True), **more)
        return restore_snapshot.run(request, self.means(run), [self.stack])

    def means(self, run: str) -> Means:
        undo = Undo(self.settings.state_dir / "undo", None, self.settings.crash_point)
        return Means(self.settings, None, undo, NOW, run, Silent())


@pytest.fixture
def shop(volume: Path, tmp_path: Path) -> Shop:
    made = Shop(volume, tmp_path)
    made.fill()
    snapshots.create(volume, NOW)
    return made


def test_a_stack_is_as_it_was_and_undo_brings_the_present_back(shop: Shop) -> None:
    then = account(shop.data)
    Life(shop.data, 4).go_on(60)
    (shop.database / "rows").write_text("now")
    now = account(shop.data)
    result = shop.restore()
    assert account(shop.data) == then
    assert (shop.database / "rows").read_text() == "then"
    assert filesystem.is_subvolume(shop.database)
    assert not btrfs.is_read_only(shop.database)
    assert result.outcome is Outcome.OK
    assert f"{shop.elsewhere}: it is not on the volume" in result.details["not_restored"]

    restore.undo_last(shop.stack, shop.means("r2"), force=True)
    assert account(shop.data) == now
    assert (shop.database / "rows").read_text() == "now"

    kept.expire(shop.settings.state_dir / "kept", NOW + timedelta(days=8))
    assert sorted(os.listdir(shop.volume / "shop")) == ["data", "db"]


def test_what_a_restored_tree_shares_with_the_snapshot_takes_no_room(shop: Shop) -> None:
    (shop.data / "big").write_bytes(os.urandom(4 << 20))
    snapshots.create(shop.volume, NOW + timedelta(minutes=1))
    shop.restore()
    argv = ["btrfs", "filesystem", "du", "--raw", "-s", shop.data / "big"]
    told = subprocess.run(argv, capture_output=True, check=True, text=True).stdout
    assert told.split("\n")[1].split()[1] == "0"  # no exclusive bytes


def test_one_tree_by_its_name_leaves_the_others(shop: Shop) -> None:
    (shop.database / "rows").write_text("now")
    (shop.data / "file").write_text("now")
    shop.restore("db")
    assert (shop.database / "rows").read_text() == "then"
    assert (shop.data / "file").read_text() == "now"


def test_a_path_comes_back_where_it_is_missing_and_overwritten_only_when_asked(shop: Shop) -> None:
    (shop.data / "file").unlink()
    assert shop.restore("data/file").details["new"] == ["file"]
    assert (shop.data / "file").read_text() == "then"
    (shop.data / "file").write_text("now")
    shop.restore("data/file", "r2")
    assert (shop.data / "file").read_text() == "now"
    shop.restore("data/file", "r3", overwrite=True)
    assert (shop.data / "file").read_text() == "then"
    restore.undo_last(shop.stack, shop.means("r4"))
    assert (shop.data / "file").read_text() == "now"


def test_a_dry_run_says_what_would_change_and_changes_nothing(shop: Shop) -> None:
    (shop.data / "file").write_text("now")
    result = shop.restore(dry_run=True)
    assert (shop.data / "file").read_text() == "now"
    (tree,) = (one for one in result.details["trees"] if one["tree"] == "data")
    assert tree["changed"] >= 1
    assert not (shop.settings.state_dir / "kept").exists()


def test_a_path_can_be_given_as_it_is_displayed(shop: Shop) -> None:
    """Where a name has such a backslash of its own, that one is meant."""
    for name in ("new\nline", "two\\nparts"):
        (shop.data / name).write_text("then")
    snapshots.create(shop.volume, NOW + timedelta(minutes=1))
    for name in ("new\nline", "two\\nparts"):
        (shop.data / name).unlink()
    shop.restore("data/new\\nline")
    assert (shop.data / "new\nline").read_text() == "then"
    shop.restore("data/two\\nparts")
    assert (shop.data / "two\\nparts").read_text() == "then"


def test_a_subvolume_within_a_tree_that_becomes_a_directory_is_told(shop: Shop) -> None:
    btrfs.create_subvolume(shop.data / "inner")
    (shop.data / "inner/f").write_text("then")
    snapshots.create(shop.volume, NOW + timedelta(minutes=1))
    result = shop.restore()
    assert result.outcome is Outcome.WARN
    assert "was a subvolume" in result.reasons[0]
    assert (shop.data / "inner/f").read_text() == "then"


def test_what_cannot_be_done_is_refused_and_nothing_changes(shop: Shop) -> None:
    (shop.data / "file").write_text("now")
    with pytest.raises(RefusedError, match="not known whether shop is running"):
        shop.restore(force=False)
    with pytest.raises(StackwardError, match="holds no data/none-such"):
        shop.restore("data/none-such")
    with pytest.raises(StackwardError, match="leads out"):
        shop.restore("../../etc")
    shop.stack = replace(shop.stack, trees=shop.stack.trees[2:])
    with pytest.raises(StackwardError, match="holds no tree of shop"):
        shop.restore()
    shop.stack = replace(shop.stack, name="other")
    with pytest.raises(SettingsError, match="no stack shop"):
        shop.restore()
    assert (shop.data / "file").read_text() == "now"


CRASH = """
import sys, json
sys.path[:0] = json.loads(sys.argv[1])
from pathlib import Path
from test_restore_snapshot import Shop
Shop(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]).restore()
"""


@pytest.mark.parametrize("point", ["restore-stopped", "restore-aside", "restore-copied"])
def test_a_kill_leaves_the_old_trees_or_the_new_ones(shop: Shop, tmp_path: Path, point: str) -> None:
    (shop.data / "file").write_text("now")
    (shop.database / "rows").write_text("now")
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(restore.__file__).parents[2])]
    argv = [sys.executable, "-c", CRASH, json.dumps(paths), str(shop.volume), str(tmp_path), point]
    died = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert died.returncode == -9, died.stderr
    Undo(shop.settings.state_dir / "undo", None).take_back_open()
    assert {(shop.data / "file").read_text(), (shop.database / "rows").read_text()} in ({"now"}, {"then"})
    shop.restore(run="r2")
    assert (shop.data / "file").read_text() == (shop.database / "rows").read_text() == "then"
