"""Restores into trees, and out of backups, whose directories are swapped for links by others: nothing outside is touched."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from btrfs.test_restore import stack_on
from stackward.config import Settings
from stackward.core.errors import ExitCode, StackwardError
from stackward.core.model import JobResult, Stack
from stackward.core.progress import Silent
from stackward.jobs import restore, restore_snapshot
from stackward.jobs.restore import Means, Request
from stackward.steps import catalog
from stackward.steps.instance import drill_copy
from stackward.steps.instance.drill_source import Source
from stackward.steps.restore import kept
from stackward.steps.undo import Undo
from stackward.steps.volume import snapshots
from stackward.tools import btrfs, filesystem
from stackward.tools.beneath import LinkOnTheWayError
from unit.backups import data_backup

pytestmark = pytest.mark.btrfs
NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
KINDS = ("directory", "subvolume", "mount")
SECRET = "the victim's own"


class Host:
    """A stack `shop` with one tree of the given kind, a backup of it, and a victim beside it."""

    def __init__(self, kind: str, volume: Path, backups: Path, place: Path) -> None:
        self.settings = Settings(
            backup_root=backups, state_dir=place / "state", volume=volume, docker_root=place / "docker"
        )
        (place / "docker/shop").mkdir(parents=True)
        self.victim = place / "docker/victim"
        self.victim.mkdir()
        (self.victim / "compose.yaml").write_text(SECRET)
        (self.victim / "only-here").write_text(SECRET)
        self.tree = volume / "shop" if kind != "mount" else place / "docker/shop/data"
        if kind == "subvolume":
            btrfs.create_subvolume(self.tree)
        else:
            self.tree.mkdir()
        if kind == "mount":
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", self.tree], check=True)
        for path, text in {"up/d/compose.yaml": "now", "up/d/old": "now", "b": "now"}.items():
            (self.tree / path).parent.mkdir(parents=True, exist_ok=True)
            (self.tree / path).write_text(text)
        data_backup(
            backups,
            "data-2026-11-30",
            NOW - timedelta(hours=1),
            {"shop": {"up/d/compose.yaml": b"then", "up/d/more": b"then", "b": b"then"}},
        )
        self.stack: Stack = stack_on(self.tree, place / "docker/shop")
        self.runs = 0
        self.mounted = kind == "mount"

    def means(self, crash_point: str = "") -> Means:
        self.runs += 1
        undo = Undo(self.settings.state_dir / "undo", None, crash_point)
        return Means(self.settings, None, undo, NOW, f"r{self.runs}", Silent())

    def restore(self, path: str | None = None, *, overwrite: bool = False) -> JobResult:
        return restore.run(Request("shop", path, overwrite=overwrite, force=True), self.means(), [self.stack])

    def undo(self) -> JobResult:
        return restore.undo_last(self.stack, self.means(), force=True)

    def expire(self) -> kept.Expired:
        return kept.expire(self.settings.state_dir / "kept", NOW + timedelta(days=8))

    def records(self) -> list[kept.Record]:
        return list(kept.records(self.settings.state_dir / "kept"))

    def seen(self, *parts: str) -> dict[str, str]:
        """The regular files of the tree (or what `parts` lead to), by path."""
        root = self.tree.joinpath(*parts)
        found = {}
        for directory, _, names in os.walk(root):
            for name in names:
                file = Path(directory) / name
                if file.is_file() and not file.is_symlink() and kept_name not in str(file):
                    found[str(file.relative_to(root))] = file.read_text()
        return found

    def require_victim(self) -> None:
        assert sorted(os.listdir(self.victim)) == ["compose.yaml", "only-here"]
        assert {(self.victim / name).read_text() for name in os.listdir(self.victim)} == {SECRET}


kept_name = ".stackward-kept"


@pytest.fixture(params=KINDS)
def host(request: pytest.FixtureRequest, volume: Path, btrfs_root: Path, tmp_path: Path) -> Iterator[Host]:
    made = Host(request.param, volume, btrfs_root, tmp_path)
    yield made
    if made.mounted:
        subprocess.run(["umount", made.tree], check=True)


def test_a_path_comes_back_and_undo_takes_it_away_again(host: Host) -> None:
    before = host.seen()

    result = host.restore("up/d", overwrite=True)

    assert result.exit_code is ExitCode.OK
    assert host.seen("up/d") == {"compose.yaml": "then", "more": "then", "old": "now"}
    assert host.seen()["b"] == "now"
    assert [name for name in os.listdir(host.tree) if name.startswith(".stackward")] == []  # nothing in its reach

    host.undo()

    assert host.seen() == before
    host.expire()
    assert host.records() == []


def test_a_directory_that_became_a_link_is_not_undone_through(host: Host) -> None:
    host.restore("up/d", overwrite=True)
    os.rename(host.tree / "up/d", host.tree / "up/d2")
    (host.tree / "up/d").symlink_to(host.victim)

    with pytest.raises(LinkOnTheWayError, match="symbolic link"):
        host.undo()

    host.require_victim()
    assert host.seen("up/d2") == {"compose.yaml": "then", "more": "then", "old": "now"}  # nothing was changed

    os.unlink(host.tree / "up/d")
    os.rename(host.tree / "up/d2", host.tree / "up/d")
    host.undo()
    assert host.seen("up/d") == {"compose.yaml": "now", "old": "now"}


def test_what_is_kept_is_not_deleted_through_a_link(host: Host) -> None:
    """Where the container reaches it at all: what is kept of a mount lies in that."""
    host.restore()
    (record,) = host.records()
    for directory in map(Path, record.directories):
        filesystem.rename_new(directory, directory.with_name("elsewhere"))
        directory.symlink_to(host.victim)

    host.expire()

    host.require_victim()


def test_what_is_kept_of_a_path_is_not_deleted_through_a_link_either(host: Host) -> None:
    host.restore("up/d", overwrite=True)
    (record,) = host.records()
    for entry in record.entries:
        if os.path.lexists(entry.kept):
            filesystem.remove_tree(Path(entry.kept))
        os.symlink(host.victim, entry.kept)

    host.expire()

    host.require_victim()
    assert host.records() == []


def test_undo_puts_back_no_other_thing_than_what_was_kept(host: Host) -> None:
    host.restore("b", overwrite=True)
    (record,) = host.records()
    (entry,) = record.entries
    filesystem.remove_tree(Path(entry.kept))
    Path(entry.kept).write_text("planted")

    with pytest.raises(StackwardError, match="what was kept is gone"):
        host.undo()
    assert host.seen()["b"] == "then"


@contextmanager
def flipping(directory: Path, victim: Path) -> Iterator[None]:
    """`directory` is swapped for a link to the victim and back, as fast as a container could."""
    stop = threading.Event()
    trap = directory.with_name("trap")
    trap.symlink_to(victim)

    def flip() -> None:
        while not stop.is_set():
            with suppress(OSError, StackwardError):
                filesystem.exchange(directory, trap)
            stop.wait(0.0002)

    thread = threading.Thread(target=flip)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for path in (directory, trap):
            if path.is_symlink():
                path.unlink()


@pytest.mark.parametrize(
    "act",
    [
        lambda host: host.restore("up/d", overwrite=True),
        lambda host: (host.restore("up/d/compose.yaml", overwrite=True), host.undo()),
        lambda host: (host.restore(), host.undo()),
        lambda host: (host.restore("up", overwrite=True), host.expire()),
    ],
    ids=["path", "undo of a path", "whole", "expiry"],
)
def test_a_container_that_swaps_its_directories_all_the_time_gains_nothing(
    host: Host, act: Callable[[Host], object]
) -> None:
    done = 0
    with flipping(host.tree / "up/d", host.victim):
        for number in range(25):
            with suppress(StackwardError, OSError):
                (host.tree / "up/d2").mkdir(exist_ok=True)
                with suppress(OSError):
                    (host.tree / "b").write_text(str(number))
                act(host)
                done += 1
            host.require_victim()
            Undo(host.settings.state_dir / "undo", None).take_back_open()
    host.require_victim()
    assert all(SECRET not in text for text in host.seen().values())


def test_a_backup_whose_directories_are_swapped_gives_nothing_of_the_host_away(host: Host) -> None:
    """BACKUP_ROOT may be a share that others write to."""
    backup = host.settings.backup_root / "data-2026-11-30"
    with flipping(backup / "shop/up/d", host.victim):
        for _ in range(25):
            with suppress(StackwardError, OSError):
                host.restore("up", overwrite=True)
            with suppress(StackwardError, OSError):
                host.restore()
            assert all(SECRET not in text for text in host.seen().values())
    host.require_victim()


def test_a_drill_copies_nothing_of_the_host_out_of_a_backup_that_is_swapped_meanwhile(host: Host) -> None:
    (artifact,) = catalog.catalog(host.settings, NOW)
    source = Source(artifact, artifact, NOW)
    with flipping(artifact.path / "shop/up/d", host.victim):
        for number in range(25):
            place = host.settings.backup_root / f".incoming-drill-{number}"
            with suppress(StackwardError, OSError):
                drill_copy.place_data(host.settings, source, "shop", place)
            for directory, _, names in os.walk(place):
                assert all(SECRET not in (Path(directory) / name).read_text() for name in names)
            host.require_victim()


@pytest.mark.parametrize("kind", ["subvolume"])
def test_a_snapshot_is_restored_into_no_link(kind: str, volume: Path, btrfs_root: Path, tmp_path: Path) -> None:
    host = Host(kind, volume, btrfs_root, tmp_path)
    snapshots.create(volume, NOW)
    request = restore_snapshot.Request("2026-11-30", "shop", "data/up/d", overwrite=True, force=True)
    (host.tree / "up/d/compose.yaml").write_text("later")
    with flipping(host.tree / "up/d", host.victim):
        for _ in range(25):
            with suppress(StackwardError, OSError):
                restore_snapshot.run(request, host.means(), [host.stack])
                host.undo()
            host.require_victim()
    assert all(SECRET not in text for text in host.seen().values())


KILLED = """
import pickle, sys
from datetime import UTC, datetime
from stackward.core.progress import Silent
from stackward.jobs import restore
from stackward.steps.undo import Undo
settings, stack, now = pickle.loads(bytes.fromhex(sys.argv[1]))
undo = Undo(settings.state_dir / "undo", None, settings.crash_point)
means = restore.Means(settings, None, undo, now, "killed", Silent())
restore.run(restore.Request("shop", "up/d", overwrite=True, force=True), means, [stack])
"""


def test_a_restore_of_a_path_that_is_killed_half_way_is_taken_back_whole(host: Host) -> None:
    before = host.seen()
    settings = replace(host.settings, crash_point="path-placed")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, pickle.dumps((settings, host.stack, NOW)).hex()],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        check=False,
    )
    assert killed.returncode == -9
    assert host.seen() != before

    undo = Undo(host.settings.state_dir / "undo", None)
    messages = undo.take_back_open()

    assert undo.open_count() == 0, messages
    assert host.seen() == before
    host.restore("up/d", overwrite=True)
    assert host.seen("up/d") == {"compose.yaml": "then", "more": "then", "old": "now"}
    host.undo()
    assert host.seen() == before
    host.expire()
    left = [path for path in (host.tree, host.settings.docker_root, host.settings.volume) for path in path.iterdir()]
    assert not [path for path in left if path.name.startswith(".stackward")]
