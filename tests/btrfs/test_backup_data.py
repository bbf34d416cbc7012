"""Data backups on real file systems: every listed day is what the trees were, whatever happened since."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hostile import flipped_for_link, leaks, make_victim
from stackward.config import Settings
from stackward.core.errors import ExitCode
from stackward.core.model import JobResult, Outcome, Policy, Stack, Tree, TreeKind
from stackward.core.progress import Progress, Silent
from stackward.jobs import backup_data, verify
from stackward.steps.backup import apply_changes, in_place, unseen
from stackward.steps.backup.day import read_index, rewrite_without
from stackward.steps.sizes import cache_file
from stackward.steps.undo import Undo
from stackward.store import Store
from stackward.tools import btrfs, filesystem, tree_root
from stackward.tools.beneath import LinkOnTheWayError
from stackward.tools.locks import Locks

pytestmark = pytest.mark.btrfs
NIGHT = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)


class Host:
    """A BACKUP_ROOT and some stacks without containers; `back_up` is the job, as the runner calls it."""

    def __init__(self, directory: Path, root: Path, volume: Path) -> None:
        self.settings = Settings(
            docker_root=directory / "docker",
            backup_root=root,
            volume=volume,
            state_dir=directory / "state",
            minimum_free_bytes=0,
        )
        self.settings.state_dir.mkdir(exist_ok=True)
        self.store = Store.open(directory / "db", now=NIGHT, locks=Locks(directory / "locks"))
        self.stacks: dict[str, Stack] = {}
        self.progress: Progress = Silent()

    def stack(self, name: str, path: Path, *others: Path, exclude: tuple[str, ...] = ()) -> Stack:
        path.mkdir(parents=True, exist_ok=True)
        trees = [Tree(name, "data", TreeKind.DATA, path, path, writable=True)]
        for other in others:
            other.mkdir(parents=True, exist_ok=True)
            trees.append(Tree(name, other.name, TreeKind.BIND, other, other, writable=True))
        stack = Stack(name, path.parent, name, trees=tuple(trees), opted_in=True, policy=Policy(exclude=exclude))
        self.stacks[name] = stack
        return stack

    def back_up(
        self, now: datetime = NIGHT, *only: str, crash_point: str = "", full_scan: bool = False, dry_run: bool = False
    ) -> JobResult:
        return backup_data.run(
            settings=replace(self.settings, crash_point=crash_point),
            store=self.store,
            docker=None,
            undo=Undo(self.settings.state_dir / "undo", None),
            stacks=list(self.stacks.values()),
            only=only,
            full_scan=full_scan,
            now=now,
            clock=lambda: now,
            run_id=now.astimezone(UTC).strftime("%Y%m%d%H%M%S"),
            progress=self.progress,
            dry_run=dry_run,
        )

    def listed(self) -> list[str]:
        return sorted(name for name in os.listdir(self.settings.backup_root) if name.startswith("data-"))


@pytest.fixture(params=["btrfs", "links"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """BACKUP_ROOT on Btrfs, and where only hard links are to be had."""
    if request.param == "btrfs":
        return request.getfixturevalue("btrfs_root")
    path = tmp_path / "backup"
    path.mkdir()
    return path


@pytest.fixture
def host(tmp_path: Path, root: Path, volume: Path) -> Host:
    return Host(tmp_path, root, volume)


@pytest.fixture(params=["snapshot", "live"])
def place(request: pytest.FixtureRequest, tmp_path: Path, volume: Path) -> Path:
    """Where a stack's data lies: on the volume, or where no snapshot can be made."""
    return (volume if request.param == "snapshot" else tmp_path) / "stacks"


def account(directory: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything that a restore must bring back, by path."""
    found: dict[bytes, tuple[object, ...]] = {}
    inodes: dict[int, bytes] = {}
    root = os.fsencode(directory)
    for here, directories, files in sorted(os.walk(root)):
        for name in sorted(directories + files):
            path = here + b"/" + name
            status = os.lstat(path)
            relative = path[len(root) + 1 :]
            content: object = b""
            if os.path.islink(path):
                content = os.readlink(path)
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    content = file.read()
            first = inodes.setdefault(status.st_ino, relative)
            xattrs = {} if os.path.islink(path) else {x: os.getxattr(path, x) for x in os.listxattr(path)}
            found[relative] = (
                status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev, content, first, xattrs,
            )  # fmt: skip
    return found


def odd_tree(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    root = os.fsencode(directory)
    for name in (
        b"plain",
        b"new\nline",
        b"back\\slash",
        b"not-utf8-\xff\xfe",
        b"-rf",
        b"cr\rhere",
        b"tab\there",
        b"\\#012",
    ):
        with open(root + b"/" + name, "wb") as file:
            file.write(name * 3)
    os.mkdir(root + b"/-dir\n")
    os.link(root + b"/plain", root + b"/-dir\n/linked")
    os.symlink("plain", root + b"/link")
    os.symlink("/nowhere/at all", root + b"/dangling")
    os.mkfifo(root + b"/fifo")
    os.mknod(root + b"/device", 0o600 | 0o020000, os.makedev(1, 3))
    with open(root + b"/sparse", "wb") as file:
        file.truncate(8 << 20)
        file.seek(4 << 20)
        file.write(b"middle")
    os.chown(root + b"/plain", 1234, 4321)
    os.chmod(root + b"/back\\slash", 0o4751)
    os.setxattr(root + b"/plain", b"user.note", b"kept")
    os.setxattr(root + b"/plain", b"trusted.note", b"kept too")
    subprocess.run(["setfacl", "-m", "u:1234:rw", root + b"/-rf"], check=True)


def attributed_tree(directory: Path) -> None:
    """Access lists and attributes of every kind, inherited ones too."""
    (directory / "d").mkdir(parents=True)
    subprocess.run(["setfacl", "-d", "-m", "u:7:rwx", directory / "d"], check=True)
    for number in range(3):
        file = directory / f"file{number}"
        file.write_bytes(bytes(100_000))
        subprocess.run(["setfacl", "-m", f"u:{number + 3}:r", file], check=True)
        os.setxattr(file, "user.note", b"kept")
        os.setxattr(file, "trusted.note", b"kept too")
    (directory / "d/inherits").touch()
    os.link(directory / "file0", directory / "link")


@pytest.mark.parametrize("full_scan", [False, True], ids=["nightly", "full scan"])
def test_access_lists_and_attributes_stay_and_cost_nothing_night_after_night(
    host: Host, place: Path, full_scan: bool
) -> None:
    data = place / "a"
    host.stack("a", data)
    attributed_tree(data)
    host.back_up()
    for night in range(1, 4):
        (data / "other").write_text(f"{night}")
        result = host.back_up(NIGHT + timedelta(days=night), full_scan=full_scan)
        newest = host.settings.backup_root / host.listed()[-1]
        assert account(newest / "a") == account(data)
        assert result.counts.bytes_changed == 1


def check_sums(backup: Path) -> subprocess.CompletedProcess[bytes]:
    argv = ["sha256sum", "--check", "--strict", "--quiet", "MANIFEST.sha256"]
    return subprocess.run(argv, cwd=backup, capture_output=True, check=False)


def test_odd_files_survive_with_owners_modes_attributes_links_and_holes(host: Host, place: Path) -> None:
    odd_tree(place / "odd")
    host.stack("odd", place / "odd")
    assert host.back_up().outcome is Outcome.OK
    backup = host.settings.backup_root / "data-2026-11-21"
    assert account(backup / "odd") == account(place / "odd")
    assert os.stat(backup / "odd" / "sparse").st_blocks * 512 < 1 << 20
    assert check_sums(backup).returncode == 0


def test_the_manifest_names_every_regular_file_and_no_other(host: Host, place: Path) -> None:
    odd_tree(place / "odd")
    host.stack("odd", place / "odd")
    host.back_up()
    backup = host.settings.backup_root / "data-2026-11-21"
    lines = (backup / "MANIFEST.sha256").read_bytes().count(b"\n")
    regular = subprocess.run(["find", backup, "-type", "f", "-printf", "x"], capture_output=True, check=True).stdout
    assert lines == len(regular) - 1  # the manifest itself


def change(directory: Path, dice: random.Random) -> None:
    """A night's life of a tree: writes, renames, deletions, changes of nothing but attributes, links made and broken."""
    names = sorted(path for path in directory.rglob("*") if not path.is_symlink())
    for _ in range(12):
        files = [path for path in names if path.is_file()]
        what = dice.choice(
            ["write", "write", "chmod", "chown", "delete", "rename", "link", "unlink", "mkdir", "swap", "xattr"]
        )
        path = dice.choice(files) if files else directory / "first"
        if what == "write" or not files:
            target = directory / f"{dice.randrange(8)}" / f"file{dice.randrange(20)}"
            target.parent.mkdir(exist_ok=True)
            if not target.is_dir():
                target.write_bytes(dice.randbytes(dice.randrange(5000)))
        elif what == "chmod":
            path.chmod(dice.choice([0o600, 0o640, 0o755]))
        elif what == "chown":
            os.chown(path, dice.randrange(3000), dice.randrange(3000))
        elif what == "xattr":
            os.setxattr(path, "user.dice", dice.randbytes(8))
        elif what == "delete":
            path.unlink()
        elif what == "rename":
            target = path.with_name(f"moved{dice.randrange(99)}")
            if not target.is_dir():
                path.rename(target)
        elif what == "link":
            target = path.with_name(f"linked{dice.randrange(99)}")
            if not target.exists():
                os.link(path, target)
        elif what == "unlink":  # a hard link broken: the content stays, the inode does not
            copy = path.with_name("copy")
            copy.write_bytes(path.read_bytes())
            copy.rename(path)
        elif what == "mkdir":
            (directory / f"dir{dice.randrange(50)}").mkdir(exist_ok=True)
        elif what == "swap":  # a file becomes a directory
            path.unlink()
            path.mkdir()
        names = sorted(path for path in directory.rglob("*") if not path.is_symlink())


@pytest.mark.parametrize("seed", [5, 6, 8])
def test_a_week_of_files_that_are_written_in_place_and_moved(
    host: Host, place: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(in_place, "SMALLEST_BYTES", 0)
    _a_week(host, place, seed)


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_a_week_of_changes_leaves_every_listed_day_as_it_was(host: Host, place: Path, seed: int) -> None:
    _a_week(host, place, seed)


def _a_week(host: Host, place: Path, seed: int) -> None:
    dice = random.Random(seed)
    trees = [place / "a" / "data", place / "a-elsewhere"]
    host.stack("a", *trees)
    expected = {}
    for night in range(7):
        for tree in trees:
            change(tree, dice)
        now = NIGHT + timedelta(days=night)
        assert host.back_up(now).outcome is Outcome.OK
        expected[now.strftime("data-%Y-%m-%d")] = [account(tree) for tree in trees]
    assert host.listed() == sorted(expected)
    for name, accounts in expected.items():
        backup = host.settings.backup_root / name
        assert [account(backup / "a"), account(backup / ".mounts/a/a-elsewhere")] == accounts
        assert check_sums(backup).returncode == 0


def test_an_unchanged_file_costs_nothing(host: Host, place: Path) -> None:
    host.stack("a", place / "a")
    (place / "a" / "big").write_bytes(os.urandom(4 << 20))
    host.back_up()
    result = host.back_up(NIGHT + timedelta(days=1))
    assert result.counts.bytes_changed == 0
    assert result.counts.files_changed == 0
    one, two = (host.settings.backup_root / name / "a" / "big" for name in host.listed())
    if one.stat().st_dev == two.stat().st_dev:
        assert one.stat().st_ino == two.stat().st_ino
    else:
        used = subprocess.run(
            ["btrfs", "filesystem", "du", "--raw", "-s", one], capture_output=True, check=True, text=True
        )
        assert used.stdout.split("\n")[1].split()[1] == "0"  # no exclusive bytes


def test_a_stack_made_again_leaves_the_days_other_stacks_as_they_were(host: Host, place: Path) -> None:
    for name in ("a", "b"):
        host.stack(name, place / name)
        (place / name / "file").write_text(f"{name} one")
    host.back_up()
    for name in ("a", "b"):
        (place / name / "file").write_text(f"{name} two")
    host.back_up(NIGHT + timedelta(hours=1), "a")
    backup = host.settings.backup_root / "data-2026-11-21"
    assert (backup / "a/file").read_text() == "a two"
    assert (backup / "b/file").read_text() == "b one"
    assert check_sums(backup).returncode == 0
    index = read_index(backup)
    assert index is not None
    assert set(index.stacks) == {"a", "b"}
    assert host.listed() == ["data-2026-11-21", "data-2026-11-21.replaced-20261121_030000"]
    replaced = host.settings.backup_root / host.listed()[1]
    assert (replaced / "a/file").read_text() == "a one"
    assert check_sums(replaced).returncode == 0


def test_a_day_holds_only_the_stacks_that_were_made_on_it(host: Host, place: Path) -> None:
    for name in ("a", "b"):
        host.stack(name, place / name)
        (place / name / "file").write_text(name)
    host.back_up()
    host.back_up(NIGHT + timedelta(days=1), "a")
    backup = host.settings.backup_root / "data-2026-11-22"
    assert not (backup / "b").exists()
    assert check_sums(backup).returncode == 0


def test_a_tree_that_is_suddenly_empty_fails_its_stack_alone_until_accepted(host: Host, place: Path) -> None:
    for name in ("a", "b"):
        host.stack(name, place / name)
        for number in range(30):
            (place / name / f"file{number}").write_text(name)
    host.back_up()
    for file in (place / "a").iterdir():
        file.unlink()
    second = host.back_up(NIGHT + timedelta(days=1))
    assert {part.stack: part.outcome for part in second.stacks} == {"a": Outcome.FAILED, "b": Outcome.OK}
    assert "30 files" in " ".join(second.stacks[0].reasons)
    assert "a" in host.store.holds()
    assert not (host.settings.backup_root / "data-2026-11-22" / "a").exists()
    host.store.accept("a", NIGHT + timedelta(days=1, hours=1))
    third = host.back_up(NIGHT + timedelta(days=2))
    assert third.outcome is Outcome.OK
    assert "a" not in host.store.holds()


def test_of_a_stack_that_fails_there_is_nothing_in_the_day(host: Host, place: Path) -> None:
    host.stack("a", place / "a/data", place / "a/elsewhere")
    host.stack("b", place / "b")
    for tree in ("a/data", "a/elsewhere", "b"):
        (place / tree / "file").write_text(tree)
    host.back_up()
    (place / "a/data/file").unlink()
    host.back_up(NIGHT + timedelta(days=1))
    backup = host.settings.backup_root / "data-2026-11-22"
    assert [path.name for path in backup.rglob("*") if path.name.startswith("a")] == []


def test_a_tree_that_is_suddenly_empty_is_noticed_where_no_backup_is_good(host: Host, place: Path) -> None:
    host.stack("a", place / "a")
    (place / "a/file").write_text("precious")
    host.back_up()
    backup = host.settings.backup_root / "data-2026-11-21"
    rot(backup / "a/file", backup)
    verify.run(settings=host.settings, store=host.store, everything=True, now=NIGHT, progress=Silent())
    (place / "a/file").unlink()
    assert host.back_up(NIGHT + timedelta(days=1)).outcome is Outcome.FAILED
    assert "a" in host.store.holds()


def test_a_tree_that_lost_nearly_everything_fails_and_one_that_lost_half_does_not(host: Host, place: Path) -> None:
    for name in ("nearly", "half"):
        host.stack(name, place / name)
        for number in range(40):
            (place / name / f"file{number}").write_text(name)
    host.back_up()
    for number in range(38):
        (place / "nearly" / f"file{number}").unlink()
    for number in range(20):
        (place / "half" / f"file{number}").unlink()
    result = host.back_up(NIGHT + timedelta(days=1))
    assert {part.stack: part.outcome for part in result.stacks} == {"nearly": Outcome.FAILED, "half": Outcome.OK}


def test_the_snapshot_of_a_stack_that_is_gone_goes_with_the_next_backup(
    host: Host, volume: Path, tmp_path: Path
) -> None:
    home = volume / ".stackward/backup"
    host.stack("on-btrfs", volume / "on-btrfs" / "data")
    host.stack("elsewhere", tmp_path / "elsewhere" / "data")
    host.back_up()
    del host.stacks["on-btrfs"]
    host.back_up(NIGHT + timedelta(days=1))
    assert list(home.iterdir()) == []


def rot(path: Path, backup: Path) -> None:
    """Change a byte as a dying disk does: neither size nor time tell."""
    before = path.stat()
    if filesystem.is_subvolume(backup):
        btrfs.set_read_only(backup, read_only=False)
    with path.open("r+b") as file:
        file.write(b"\xff")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_damage_that_was_found_gets_into_no_later_backup(host: Host, place: Path) -> None:
    host.stack("a", place / "a")
    (place / "a" / "file").write_text("precious")
    host.back_up()
    backup = host.settings.backup_root / "data-2026-11-21"
    rot(backup / "a/file", backup)
    found = verify.run(settings=host.settings, store=host.store, everything=True, now=NIGHT, progress=Silent())
    assert found.exit_code == ExitCode.DAMAGED
    for hours in (1, 2, 24):
        assert host.back_up(NIGHT + timedelta(hours=hours)).outcome is Outcome.OK
    for name in ("data-2026-11-21", "data-2026-11-22"):
        assert check_sums(host.settings.backup_root / name).returncode == 0
    known = {name for name, seen in host.store.verified().items() if seen.damaged}
    assert known == {"data-2026-11-21.replaced-20261121_030000"}


def test_excluded_paths_are_left_out_also_when_they_were_in_the_last_backup(host: Host, place: Path) -> None:
    host.stack("a", place / "a")
    (place / "a" / "cache").mkdir()
    (place / "a" / "cache" / "x").write_text("x")
    (place / "a" / "kept").write_text("x")
    host.back_up()
    host.stack("a", place / "a", exclude=("cache/",))
    host.back_up(NIGHT + timedelta(days=1))
    backup = host.settings.backup_root / "data-2026-11-22"
    assert sorted(path.name for path in (backup / "a").iterdir()) == ["kept"]
    assert check_sums(backup).returncode == 0


def test_a_stack_can_be_dropped_from_a_day(host: Host, place: Path) -> None:
    for name in ("a", "b"):
        host.stack(name, place / name)
        (place / name / "file").write_text(name)
    host.back_up()
    rewrite_without(host.settings.backup_root, "data-2026-11-21", ["a"], "prune", NIGHT)
    backup = host.settings.backup_root / "data-2026-11-21"
    assert host.listed() == ["data-2026-11-21"]
    assert not (backup / "a").exists()
    assert (backup / "b/file").read_text() == "b"
    assert check_sums(backup).returncode == 0
    index = read_index(backup)
    assert index is not None
    assert set(index.stacks) == {"b"}


def test_nested_subvolumes_are_in_the_backup(host: Host, volume: Path) -> None:
    btrfs.create_subvolume(volume / "shop")
    host.stack("shop", volume / "shop" / "data")
    btrfs.create_subvolume(volume / "shop/data/inner")
    (volume / "shop/data/inner/deep").mkdir()
    btrfs.create_subvolume(volume / "shop/data/inner/deep/er")
    (volume / "shop/data/inner/file").write_text("inner")
    (volume / "shop/data/inner/deep/er/file").write_text("deeper")
    (volume / "shop/data/file").write_text("outer")
    assert host.back_up().outcome is Outcome.OK
    backup = host.settings.backup_root / "data-2026-11-21" / "shop"
    assert (backup / "inner/file").read_text() == "inner"
    assert (backup / "inner/deep/er/file").read_text() == "deeper"
    assert not list((volume / ".stackward/backup").iterdir())


def scans(result: JobResult) -> set[str]:
    return set(result.details["scans"].values())


def test_only_what_changed_is_looked_at_where_two_snapshots_tell_it(
    tmp_path: Path, btrfs_root: Path, volume: Path
) -> None:
    host = Host(tmp_path, btrfs_root, volume)
    host.stack("a", volume / "stacks/a")
    for number in range(50):
        (volume / f"stacks/a/file{number}").write_text("old")
    assert scans(host.back_up()) == {"it is its first backup"}
    (volume / "stacks/a/file7").write_text("new")
    second = host.back_up(NIGHT + timedelta(days=1))
    assert scans(second) == {""}
    assert second.counts.files == 50
    assert second.counts.files_changed == 1
    assert second.counts.bytes == 150
    assert (btrfs_root / "data-2026-11-22/a/file7").read_text() == "new"


@pytest.mark.parametrize("full_scan", [False, True], ids=["by changes", "full scan"])
def test_a_file_with_very_many_names_is_copied_under_all(host: Host, root: Path, volume: Path, full_scan: bool) -> None:
    data = volume / "stacks/a"
    host.stack("a", data)
    (data / "first").write_bytes(b"one")
    for number in range(600):
        os.link(data / "first", data / f"{number:0200}")
    host.back_up()
    before = (data / "first").stat()
    (data / "first").write_bytes(b"two")
    os.utime(data / "first", ns=(before.st_atime_ns, before.st_mtime_ns))
    second = host.back_up(NIGHT + timedelta(days=1), full_scan=full_scan)
    assert scans(second) == {"a full scan was asked for" if full_scan else ""}
    for number in range(3000):
        os.link(data / "first", data / f"more{number}")
    host.back_up(NIGHT + timedelta(days=2), full_scan=full_scan)
    for night in host.listed()[1:]:
        assert len(os.listdir(root / night / "a")) == (601 if "22" in night else 3601)
        assert check_sums(root / night).returncode == 0
    assert account(root / host.listed()[-1] / "a") == account(data)


def test_more_names_than_a_file_system_links_are_copied_all_the_same(tmp_path: Path, volume: Path) -> None:
    """ext4 gives a file 65,000 names; that many backups share one in vain."""
    root = tmp_path / "backup"
    root.mkdir()
    host = Host(tmp_path, root, volume)
    data = tmp_path / "stacks/a"
    host.stack("a", data)
    (data / "first").write_bytes(b"one")
    for number in range(33_000):
        os.link(data / "first", data / f"{number}")
    for night in range(2):
        assert host.back_up(NIGHT + timedelta(days=night)).outcome is Outcome.OK
    assert (root / host.listed()[0] / "a/first").stat().st_nlink >= 33_001
    assert (root / host.listed()[1] / "a/first").stat().st_nlink >= 33_001


@pytest.mark.parametrize("full_scan", [False, True], ids=["by changes", "full scan"])
def test_a_file_that_is_to_be_compressed_is_copied_to_any_file_system(
    host: Host, root: Path, volume: Path, full_scan: bool
) -> None:
    data = volume / "stacks/a"
    host.stack("a", data)
    (data / "log").write_text("text\n" * 1000)
    host.back_up()
    subprocess.run(["btrfs", "property", "set", data / "log", "compression", "zstd"], check=True)
    (data / "other").write_text("text")
    subprocess.run(["btrfs", "property", "set", data / "other", "compression", "lzo"], check=True)
    result = host.back_up(NIGHT + timedelta(days=1), full_scan=full_scan)
    assert result.outcome is Outcome.OK
    assert (root / "data-2026-11-22/a/other").read_text() == "text"


def test_a_file_that_was_only_read_costs_nothing(host: Host, root: Path, volume: Path) -> None:
    data = volume / "stacks/a"
    host.stack("a", data)
    (data / "file").write_bytes(os.urandom(1 << 16))
    os.utime(data / "file", ns=(0, (data / "file").stat().st_mtime_ns))  # so that reading it is noted
    os.utime(data, ns=(0, data.stat().st_mtime_ns))
    host.back_up()
    (data / "file").read_bytes()
    os.listdir(data)
    assert (data / "file").stat().st_atime > 0
    result = host.back_up(NIGHT + timedelta(days=1))
    assert (result.counts.files_changed, result.counts.bytes_changed) == (0, 0)
    one, two = (os.stat(root / name / "a/file") for name in host.listed())
    assert one.st_ino == two.st_ino


def test_an_attribute_that_the_backups_file_system_cannot_hold_is_named(tmp_path: Path, volume: Path) -> None:
    root = tmp_path / "backup"
    root.mkdir()
    host = Host(tmp_path, root, volume)
    data = volume / "stacks/a"
    host.stack("a", data)
    host.stack("b", volume / "stacks/b")
    (volume / "stacks/b/file").touch()
    (data / "file").touch()
    host.back_up()
    os.setxattr(data / "file", "user.large", bytes(10_000))
    for full_scan in (False, True):
        result = host.back_up(NIGHT + timedelta(days=1, hours=full_scan), full_scan=full_scan)
        outcome = {part.stack: part.outcome for part in result.stacks}
        assert outcome == {"a": Outcome.FAILED, "b": Outcome.OK}
        (reason, hint) = next(part.reasons for part in result.stacks if part.stack == "a")
        assert "user.large is larger than" in reason
        assert "stackward.backup.exclude" in hint


def test_owners_that_anothers_rsync_keeps_in_attributes_are_in_the_backup(host: Host, root: Path, place: Path) -> None:
    """As of a stack that is itself what others back up to, with --fake-super."""
    data = place / "a"
    host.stack("a", data)
    (data / "file").touch()
    os.setxattr(data / "file", "user.rsync.%stat", b"100644 0,0 1234:4321")
    host.back_up()
    assert account(root / host.listed()[0] / "a") == account(data)


@pytest.mark.parametrize("how", ["by changes", "full scan", "scan in doubt"])
def test_a_directory_that_another_took_the_place_of_is_copied(
    host: Host, root: Path, volume: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """As releases are switched: the same names, sizes and times in both."""
    data = volume / "stacks/a"
    host.stack("a", data)
    for version, name in (("1.2.3", "current"), ("1.2.4", "new")):
        (data / name).mkdir()
        (data / name / "package").write_text(version)
        os.utime(data / name / "package", ns=(0, 0))
    host.back_up()
    (data / "current").rename(data / "old")
    (data / "new").rename(data / "current")
    if how == "scan in doubt":

        def failing(*_: object, **__: object) -> None:
            raise OSError("no account after all")

        monkeypatch.setattr(apply_changes, "apply", failing)
    host.back_up(NIGHT + timedelta(days=1), full_scan=how == "full scan")
    assert account(root / "data-2026-11-22/a") == account(data)
    assert check_sums(root / "data-2026-11-22").returncode == 0


@pytest.mark.parametrize("full_scan", [False, True], ids=["by changes", "full scan"])
def test_content_that_changed_behind_an_unchanged_time_and_size_is_copied(
    host: Host, root: Path, place: Path, volume: Path, full_scan: bool
) -> None:
    """A full scan goes by time and size; nor may what it does not see be lost to the night after it."""
    data = place / "a"
    host.stack("a", data)
    names = ("small", "another name of small", "large")
    for name, size in zip(names, (3, 3, 2 << 20), strict=True):
        (data / name).write_bytes(b"o" * size)
    (data / names[1]).unlink()
    os.link(data / "small", data / names[1])
    host.back_up()
    for name in ("small", "large"):
        file = data / name
        before = file.stat()
        with file.open("r+b") as opened:
            opened.write(b"two")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = host.back_up(NIGHT + timedelta(days=1), full_scan=full_scan)
    if place.is_relative_to(volume):
        assert scans(second) == {"a full scan was asked for" if full_scan else ""}
    host.back_up(NIGHT + timedelta(days=2))
    for night in ("data-2026-11-22", "data-2026-11-23"):
        assert account(root / night / "a") == account(data)
        assert check_sums(root / night).returncode == 0
    assert (root / "data-2026-11-21/a/small").read_bytes() == b"ooo"


def test_what_changed_behind_its_time_is_not_lost_to_a_day_that_begins_elsewhere(
    tmp_path: Path, btrfs_root: Path, volume: Path
) -> None:
    """The day's origin is older than the stack's last backup, which saw the change."""
    host = Host(tmp_path, btrfs_root, volume)
    for name, size in (("large", 1 << 20), ("small", 3)):
        host.stack(name, volume / "stacks" / name)
        (volume / "stacks" / name / "file").write_bytes(b"o" * size)
    host.back_up()
    file = volume / "stacks/small/file"
    before = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    later = datetime.now(UTC) + timedelta(hours=1)  # what was touched before it has been looked at
    host.back_up(later, "small")
    result = host.back_up(later + timedelta(days=1))
    assert result.details["scans"]["small"] == "the day did not begin as a snapshot of its last backup"
    newest = host.listed()[-1]
    assert (btrfs_root / newest / "small/file").read_bytes() == b"two"
    assert check_sums(btrfs_root / newest).returncode == 0


@pytest.mark.parametrize("becomes", ["nothing", "fifo", "link", "directory"])
def test_a_live_file_that_became_something_else_meanwhile_fails_nothing(tmp_path: Path, becomes: str) -> None:
    """Between the scan and the closer look anything may happen in a tree that is in use."""
    live, copy, shared = tmp_path / "live", tmp_path / "copy", tmp_path / "shared"
    for directory in (live, shared):
        directory.mkdir()
    (live / "file").write_text("one")
    (live / "other").write_text("new")
    for name in ("file", "other"):
        (shared / name).write_text("old")
        os.utime(shared / name, ns=(0, (live / name).stat().st_mtime_ns))
    copy.mkdir()
    for name in ("file", "other"):
        os.link(shared / name, copy / name)
    (live / "file").unlink()
    if becomes == "fifo":
        os.mkfifo(live / "file")
    elif becomes == "link":
        (live / "file").symlink_to("/etc/passwd")
    elif becomes == "directory":
        (live / "file").mkdir()
    with tree_root.opened(live) as opened:
        unseen.by_ctime(opened, copy, shared, 0.0)
    assert [(copy / name).read_text() for name in ("file", "other")] == ["old", "new"]
    assert (shared / "other").read_text() == "old"


def test_a_new_time_that_nobody_told_of_means_new_content(host: Host, root: Path, volume: Path) -> None:
    """What the account says of a file's content is trusted for less than a full scan would see."""
    data = volume / "stacks/a"
    host.stack("a", data)
    (data / "file").write_text("content")
    host.back_up()
    os.utime(data / "file", ns=(5, 5))
    host.back_up(NIGHT + timedelta(days=1))
    one, other = (root / night / "a/file" for night in ("data-2026-11-21", "data-2026-11-22"))
    assert other.stat().st_mtime_ns == 5 != one.stat().st_mtime_ns
    assert one.stat().st_ino != other.stat().st_ino


def test_a_file_that_was_touched_and_is_the_same_costs_nothing(host: Host, root: Path, tmp_path: Path) -> None:
    """A later ctime alone, as a second name somewhere gives it, makes no new copy."""
    data = tmp_path / "stacks/a"
    host.stack("a", data)
    (data / "file").write_bytes(b"same")
    host.back_up()
    os.link(data / "file", tmp_path / "elsewhere")
    host.back_up(NIGHT + timedelta(days=1))
    one, other = (os.stat(root / night / "a/file") for night in ("data-2026-11-21", "data-2026-11-22"))
    assert one.st_ino == other.st_ino


def test_a_day_begins_where_most_of_its_data_is(tmp_path: Path, btrfs_root: Path, volume: Path) -> None:
    host = Host(tmp_path, btrfs_root, volume)
    for name, size in (("large", 1 << 20), ("small", 10)):
        host.stack(name, volume / "stacks" / name)
        (volume / "stacks" / name / "file").write_bytes(os.urandom(size))
    host.back_up()
    (volume / "stacks/small/file").write_bytes(b"second")
    host.back_up(NIGHT + timedelta(days=1), "small")
    (volume / "stacks/small/file").write_bytes(b"third!")
    result = host.back_up(NIGHT + timedelta(days=2))
    assert result.details["scans"] == {
        "large": "",
        "small": "the day did not begin as a snapshot of its last backup",
    }
    backup = btrfs_root / "data-2026-11-23"
    assert (backup / "small/file").read_bytes() == b"third!"
    assert check_sums(backup).returncode == 0


def test_no_snapshot_is_kept_for_a_stack_that_is_no_longer_backed_up(
    tmp_path: Path, btrfs_root: Path, volume: Path
) -> None:
    host = Host(tmp_path, btrfs_root, volume)
    for name in ("a", "b"):
        host.stack(name, volume / "stacks" / name)
        (volume / "stacks" / name / "file").write_text(name)
    host.back_up()
    assert len(list((volume / ".stackward/backup").iterdir())) == 2
    del host.stacks["b"]
    host.back_up(NIGHT + timedelta(days=1))
    assert len(list((volume / ".stackward/backup").iterdir())) == 1


@pytest.mark.parametrize("doubt", ["snapshot gone", "snapshot written to", "excludes changed", "asked for"])
def test_in_doubt_everything_is_looked_at(tmp_path: Path, btrfs_root: Path, volume: Path, doubt: str) -> None:
    host = Host(tmp_path, btrfs_root, volume)
    host.stack("a", volume / "stacks/a")
    (volume / "stacks/a/file").write_text("one")
    host.back_up()
    (old,) = (volume / ".stackward/backup").iterdir()
    if doubt == "snapshot gone":
        btrfs.delete(old)
    elif doubt == "snapshot written to":
        btrfs.set_read_only(old, read_only=False)
    elif doubt == "excludes changed":
        host.stack("a", volume / "stacks/a", exclude=("*.tmp",))
    (volume / "stacks/a/file").write_text("two")
    result = host.back_up(NIGHT + timedelta(days=1), full_scan=doubt == "asked for")
    assert "" not in scans(result)
    assert (btrfs_root / "data-2026-11-22/a/file").read_text() == "two"
    assert len(list((volume / ".stackward/backup").iterdir())) == 1


CRASH = """
import sys, json
sys.path[:0] = json.loads(sys.argv[1])
from pathlib import Path
from datetime import timedelta
from test_backup_data import Host, NIGHT
host = Host.__new__(Host)
host.__dict__ = {}
directory, root, volume, point = (Path(argument) for argument in sys.argv[2:6])
import shutil
shutil.rmtree(directory / "state", ignore_errors=True)
Host.__init__(host, directory, root, volume)
for name in ("a", "b"):
    host.stack(name, volume / "stacks" / name)
host.back_up(NIGHT + timedelta(hours=float(sys.argv[6])), crash_point=point.name)
"""


def test_a_scan_after_a_failed_rewrite_takes_no_file_for_unwritten(
    tmp_path: Path, btrfs_root: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One large file was written in place when the next one turned out to be another than thought."""
    host = Host(tmp_path, btrfs_root, volume)
    data = volume / "stacks/shop/data"
    btrfs.create_subvolume(volume / "stacks")
    host.stack("shop", data)
    for name in ("one", "two"):
        (data / name).write_bytes(os.urandom(2 << 20))
    host.back_up()
    for name in ("one", "two"):
        with (data / name).open("r+b") as file:
            file.write(b"changed")
    rewrite, done = in_place.rewrite, []

    def failing(source: bytes, target: bytes, extents: Iterable[in_place.Extent]) -> tuple[str, int]:
        if done:
            raise in_place.NotTheSameError("it differs")
        done.append(target)
        return rewrite(source, target, extents)

    monkeypatch.setattr(in_place, "rewrite", failing)
    result = host.back_up(NIGHT + timedelta(days=1))
    assert result.outcome is Outcome.OK
    assert "it differs" in str(scans(result))
    assert check_sums(btrfs_root / host.listed()[-1]).returncode == 0
    assert account(btrfs_root / host.listed()[-1] / "shop") == account(data)


@pytest.mark.parametrize("hours", [5, 24])
@pytest.mark.parametrize(
    "point", ["data-incoming", "data-snapshot", "data-copied", "data-manifest", "data-exchanged", "data-published"]
)
def test_a_kill_leaves_the_old_days_or_the_new_one_whole(host: Host, volume: Path, point: str, hours: int) -> None:
    for name in ("a", "b"):
        host.stack(name, volume / "stacks" / name)
        (volume / "stacks" / name / "file").write_text("first")
    host.back_up()
    (volume / "stacks/a/file").write_text("second")
    (host.settings.state_dir / "backup-root-id").unlink()
    here = Path(__file__).parent
    paths = [str(here), str(here.parent), str(Path(backup_data.__file__).parents[2])]
    argv = [sys.executable, "-c", CRASH, json.dumps(paths)]
    argv += [str(host.settings.state_dir.parent), str(host.settings.backup_root), str(volume), point, str(hours)]
    died = subprocess.run(argv, capture_output=True, text=True, check=False)
    exchanged_only = point == "data-exchanged" and hours == 24
    assert died.returncode == (0 if exchanged_only else -9), died.stderr
    for name in host.listed():
        backup = host.settings.backup_root / name
        assert check_sums(backup).returncode == 0
        assert {"a", "b"} <= {path.name for path in backup.iterdir()}
    (host.settings.state_dir / "backup-root-id").unlink(missing_ok=True)
    assert host.back_up(NIGHT + timedelta(days=2)).outcome is Outcome.OK
    assert not [name for name in os.listdir(host.settings.backup_root) if name.startswith(".incoming")]
    kept = sorted(path.name[:14] for path in (volume / ".stackward/backup").iterdir())
    assert kept in (
        [],
        ["20261123020000"] * 2,
    )  # what the next backup compares with, of each stack one; nothing of a dead run
    assert (host.settings.backup_root / "data-2026-11-23/a/file").read_text() == "second"


def test_a_dry_run_foretells_how_each_tree_will_be_looked_at(host: Host, volume: Path, tmp_path: Path) -> None:
    host.stack("shop", volume / "shop" / "data", tmp_path / "live")
    nights = [NIGHT + timedelta(days=number) for number in range(3)]

    def foretold_and_done(now: datetime, *, full_scan: bool = False) -> tuple[list[str], list[str]]:
        [stack] = host.back_up(now, dry_run=True, full_scan=full_scan).details["stacks"]
        done = host.back_up(now, full_scan=full_scan)
        return [tree["why"] for tree in stack["trees"]], list(done.details["scans"].values())

    assert [sorted(whys) for whys in foretold_and_done(nights[0])] == [
        ["it is its first backup", "it is not on the volume"]
    ] * 2
    assert [sorted(whys) for whys in foretold_and_done(nights[1])] == [["", "it is not on the volume"]] * 2
    assert [sorted(whys) for whys in foretold_and_done(nights[2], full_scan=True)] == [
        ["a full scan was asked for"] * 2
    ] * 2


class Bars(Silent):
    """Remembers of each step of how many bytes it was to be, and how many it came to."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int | None]] = []
        self.done: list[int] = []

    def step(self, text: str, *, total_bytes: int | None = None, **_more: int | None) -> None:
        self.steps.append((text, total_bytes))
        self.done.append(0)

    def advance(self, *, byte_count: int = 0, **_more: int) -> None:
        self.done[-1] += byte_count

    @property
    def copied(self) -> list[tuple[int | None, int]]:
        """Of each copy that was a full scan: of how many bytes, and how many."""
        names = [text for text, _ in self.steps]
        again = [number for number, name in enumerate(names) if "copying" in name and name in names[:number]]
        return [(self.steps[number][1], self.done[number]) for number in again]


def test_a_full_scan_says_of_how_much_as_far_as_that_is_known(host: Host, place: Path) -> None:
    measured = host.stack("measured", place / "measured" / "data").trees[0].path
    for path in (host.stack("shop", place / "shop" / "data").trees[0].path, measured):
        for number in range(40):
            (path / str(number)).write_bytes(bytes(1000))
    cache = cache_file(host.settings.state_dir)
    cache.parent.mkdir()
    size = {"at": NIGHT.isoformat(), "files": 40, "bytes": 41_000, "allocated_bytes": 163_840, "complete": True}
    cache.write_text(json.dumps({str(measured): size}))

    host.progress = bars = Bars()
    host.back_up(NIGHT)
    assert sorted(bars.copied, key=str) == [(41_000, 40_000), (None, 40_000)]

    host.progress = bars = Bars()
    host.back_up(NIGHT + timedelta(days=1), full_scan=True)
    assert [total for total, _ in bars.copied] == [40_000, 40_000]
    assert all(35_000 < done <= 40_000 for _, done in bars.copied)

    host.progress = bars = Bars()
    host.back_up(NIGHT + timedelta(days=2))
    by_changes = place.is_relative_to(host.settings.volume)
    assert len(bars.copied) == (0 if by_changes else 2)


def test_a_link_that_stood_in_the_tree_s_place_when_it_was_snapshotted_is_not_followed(
    host: Host, volume: Path, tmp_path: Path
) -> None:
    """Neither by a full scan nor by the account of what changed."""
    victim = make_victim(tmp_path / "victim", ["file"])
    data = volume / "stacks/a"
    host.stack("a", data)
    (data / "file").write_text("own")
    host.back_up()
    data.rename(volume / "stacks/away")
    data.symlink_to(victim)
    for night, full_scan in enumerate((False, True), 1):
        result = host.back_up(NIGHT + timedelta(days=night), full_scan=full_scan)
        assert [stack.outcome for stack in result.stacks] == [Outcome.FAILED]
        assert leaks(host.settings.backup_root) == []


def test_a_subvolume_that_a_link_leads_to_meanwhile_is_not_snapshotted(volume: Path) -> None:
    for name in ("own", "victim"):
        (volume / name).mkdir()
        btrfs.create_subvolume(volume / name / "data")
        (volume / name / "data" / name).touch()
    taken = 0
    with flipped_for_link(volume / "own/data", volume / "victim/data"):
        for turn in range(2000):
            if taken >= 20:
                break
            try:
                btrfs.snapshot(volume / "own/data", volume / f"snapshot{turn}", read_only=True)
            except LinkOnTheWayError:
                continue
            taken += 1
            assert os.listdir(volume / f"snapshot{turn}") == ["own"]
    assert taken
    with pytest.raises(btrfs.UntoldError):
        btrfs.snapshot(volume / "own", volume / "plain", read_only=True)
