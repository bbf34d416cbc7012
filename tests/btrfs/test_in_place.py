"""Large files in the day are changed where they changed, and proven; a backup grows by that, and not by the file."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from stackward.steps.backup import apply_changes, changes, in_place
from stackward.tools import btrfs, filesystem, sendstream

pytestmark = pytest.mark.btrfs
MEBIBYTE = 1 << 20


class Copied:
    """A subvolume with one large file, its snapshot, and a copy of it in a writable snapshot, as a day begins."""

    def __init__(self, volume: Path, root: Path) -> None:
        self.live = volume / "live"
        btrfs.create_subvolume(self.live)
        self.file = self.live / "large"
        self.file.write_bytes(os.urandom(64 * MEBIBYTE))
        self.old = volume / "old"
        btrfs.snapshot(self.live, self.old, read_only=True)
        base = root / "base"
        btrfs.create_subvolume(base)
        (base / "stack").mkdir()
        subprocess.run(["cp", "--archive", self.file, base / "stack"], check=True)
        btrfs.snapshot(base, root / "day", read_only=False)
        self.day = root / "day/stack"
        self.new = volume / "new"

    def changed(self) -> changes.Changes:
        btrfs.snapshot(self.live, self.new, read_only=True)
        return changes.account(sendstream.changes_between(self.old, self.new), b"")

    def apply(self, found: changes.Changes) -> apply_changes.Applied:
        return apply_changes.apply(found, self.new, self.new, self.day, (), before=self.old)

    def exclusive_bytes(self) -> int:
        """What the day holds for itself alone."""
        filesystem.sync_filesystem(self.day)
        argv = ["btrfs", "filesystem", "du", "--raw", "-s", self.day]
        return int(subprocess.run(argv, check=True, capture_output=True).stdout.splitlines()[-1].split()[1])


@pytest.fixture
def copied(volume: Path, btrfs_root: Path) -> Copied:
    return Copied(volume, btrfs_root)


def same(one: Path, other: Path) -> bool:
    first, second = os.stat(one), os.stat(other)
    return one.read_bytes() == other.read_bytes() and first.st_mtime_ns == second.st_mtime_ns


def test_what_is_newly_used_is_what_changed(copied: Copied) -> None:
    with copied.file.open("r+b") as file:
        for place in range(32):
            file.seek(place * 2 * MEBIBYTE + 777)
            file.write(os.urandom(4096))
    applied = copied.apply(copied.changed())
    assert same(copied.day / "large", copied.file)
    assert applied.digests == {b"large": hashlib.sha256(copied.file.read_bytes()).hexdigest()}
    assert applied.bytes_changed == 32 * 8192  # each of the places touches two blocks
    assert copied.exclusive_bytes() <= 2 * applied.bytes_changed


def test_holes_shrinking_growth_and_a_new_time_are_followed(copied: Copied) -> None:
    subprocess.run(["fallocate", "-p", "-o", "4MiB", "-l", "16MiB", copied.file], check=True)
    os.truncate(copied.file, 40 * MEBIBYTE + 3)
    os.truncate(copied.file, 200 * MEBIBYTE)
    os.utime(copied.file, ns=(1, 2))
    copied.apply(copied.changed())
    assert same(copied.day / "large", copied.file)
    assert os.stat(copied.day / "large").st_blocks == os.stat(copied.file).st_blocks
    assert copied.exclusive_bytes() <= 8192  # the block in which it was cut


def test_a_new_time_or_mode_alone_writes_nothing(copied: Copied) -> None:
    os.utime(copied.file, ns=(5, 6))
    os.chown(copied.file, 12, 34)
    copied.file.chmod(0o4751)
    copied.apply(copied.changed())
    found = os.stat(copied.day / "large")
    assert (found.st_mtime_ns, found.st_mode & 0o7777, found.st_uid, found.st_gid) == (6, 0o4751, 12, 34)
    assert copied.exclusive_bytes() == 0


def test_attributes_that_a_write_takes_away_are_back(copied: Copied) -> None:
    copied.file.chmod(0o6755)
    subprocess.run(["setcap", "cap_net_raw+ep", copied.file], check=True)
    copied.apply(copied.changed())
    with copied.file.open("r+b") as file:
        file.write(b"changed")
    copied.file.chmod(0o6755)
    subprocess.run(["setcap", "cap_net_raw+ep", copied.file], check=True)
    copied.old, copied.new = copied.new, copied.new.with_name("newer")
    copied.apply(copied.changed())
    assert same(copied.day / "large", copied.file)
    assert os.stat(copied.day / "large").st_mode & 0o7777 == 0o6755
    name = "security.capability"
    assert os.getxattr(copied.day / "large", name) == os.getxattr(copied.file, name)


def test_a_change_that_nobody_told_of_is_found_and_leaves_a_time_that_shows_it(copied: Copied) -> None:
    """As if the stream had kept a place to itself, or the last backup were not what it should be."""
    with copied.file.open("r+b") as file:
        file.seek(MEBIBYTE)
        file.write(b"new")
    with (copied.day / "large").open("r+b") as file:
        file.seek(30 * MEBIBYTE)
        file.write(b"rotten")
    found = copied.changed()
    with pytest.raises(in_place.NotTheSameError, match="differs"):
        copied.apply(found)
    assert os.stat(copied.day / "large").st_mtime_ns != os.stat(copied.file).st_mtime_ns


def test_one_of_two_names_is_not_written_into(copied: Copied) -> None:
    os.link(copied.day / "large", copied.day / "other")
    os.link(copied.file, copied.live / "other")
    with copied.file.open("r+b") as file:
        file.write(b"new")
    applied = copied.apply(copied.changed())
    assert applied.digests == {}
    assert same(copied.day / "large", copied.file)
    assert os.stat(copied.day / "large").st_ino == os.stat(copied.day / "other").st_ino


def test_a_move_takes_no_room(copied: Copied) -> None:
    (copied.live / "library/2026").mkdir(parents=True)
    copied.file.rename(copied.live / "library/2026/moved")
    applied = copied.apply(copied.changed())
    assert same(copied.day / "library/2026/moved", copied.live / "library/2026/moved")
    assert sorted(os.listdir(copied.day)) == ["library"]
    assert applied.digests.keys() == {b"library/2026/moved"}
    assert applied.bytes_grown == 0
    assert copied.exclusive_bytes() == 0


def test_one_that_was_moved_and_changed_is_copied(copied: Copied) -> None:
    moved = copied.live / "moved"
    copied.file.rename(moved)
    with moved.open("r+b") as file:
        file.write(b"new")
    copied.file.write_bytes(os.urandom(2 * MEBIBYTE))
    applied = copied.apply(copied.changed())
    assert same(copied.day / "moved", moved)
    assert same(copied.day / "large", copied.file)
    assert applied.bytes_changed == 66 * MEBIBYTE
    assert sorted(os.listdir(copied.day)) == ["large", "moved"]
