"""What Btrfs's stream says is different, held against two full walks."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from btrfs.life import Life
from stackward.steps.volume import renaming, snapshot_diff
from stackward.steps.volume.snapshot_diff import Diff
from stackward.tools import btrfs, sendstream

pytestmark = pytest.mark.btrfs


@dataclass
class Thing:
    """An inode: its names as (inode of the directory, name) with their paths, and what it is."""

    names: dict[tuple[int, bytes], bytes] = field(default_factory=dict)
    facts: object = None
    directory: bool = False


def walked(root: Path) -> dict[int, Thing]:
    found: dict[int, Thing] = defaultdict(Thing)
    top = os.fsencode(root)
    found[os.lstat(top).st_ino] = Thing({(0, b""): b""}, facts(top), directory=True)
    for here, directories, files in os.walk(top):
        for name in directories + files:
            path = os.path.join(here, name)
            thing = found[os.lstat(path).st_ino]
            thing.names[os.lstat(here).st_ino, name] = path[len(top) + 1 :]
            thing.facts, thing.directory = facts(path), stat.S_ISDIR(os.lstat(path).st_mode)
    return dict(found)


def facts(path: bytes) -> object:
    status = os.lstat(path)
    kind = stat.S_IFMT(status.st_mode)
    xattrs = {n: os.getxattr(path, n) for n in os.listxattr(path)} if kind in (stat.S_IFREG, stat.S_IFDIR) else {}
    content = None
    if kind == stat.S_IFREG:
        with open(path, "rb") as file:
            content = file.read()
    time = None if kind == stat.S_IFDIR else status.st_mtime_ns
    return (status.st_mode, status.st_uid, status.st_gid, time, content, xattrs)


def expected(old: dict[int, Thing], new: dict[int, Thing]) -> tuple[set, set, set, set]:
    """Paths that came, paths that went, renames of what has one name, paths of what was there before and is different."""
    came, went, renamed, changed = set(), set(), set(), set()
    for inode in old.keys() | new.keys():
        before, after = old.get(inode, Thing()), new.get(inode, Thing())
        lost = [before.names[key] for key in before.names.keys() - after.names.keys()]
        gained = [after.names[key] for key in after.names.keys() - before.names.keys()]
        went.update(lost)
        came.update(gained)
        if len(before.names) == len(after.names) == len(lost) == len(gained) == 1:
            renamed.add((lost[0], gained[0]))
        if inode in old and inode in new and before.facts != after.facts:
            changed.update(after.names.values())
    return came, went, renamed, changed


@pytest.mark.parametrize("seed", range(8))
def test_the_account_is_what_two_full_walks_find(volume: Path, seed: int) -> None:
    live = volume / "live"
    btrfs.create_subvolume(live)
    life = Life(live, seed)
    life.go_on(60)
    old = volume / "snapshot-0"
    btrfs.snapshot(live, old, read_only=True)
    for number in range(1, 5):
        life.go_on(30)
        new = volume / f"snapshot-{number}"
        btrfs.snapshot(live, new, read_only=True)
        came, went, renamed, changed = expected(before := walked(old), after := walked(new))
        told = renaming.names(sendstream.changes_between(old, new))
        assert told.created | {to for _, to in told.renamed} == came
        assert told.removed | {source for source, _ in told.renamed} == went
        assert renamed <= told.renamed
        for source, to in told.renamed - renamed:  # names of things with several
            assert (
                len(before[os.lstat(old / os.fsdecode(source)).st_ino].names) > 1
                or len(after[os.lstat(new / os.fsdecode(to)).st_ino].names) > 1
            )
        diff = snapshot_diff.between(old, new)
        replaced = told.created & told.removed
        assert set(diff.changed) - replaced - told.created == changed - replaced - told.created, f"round {number}"
        assert replaced <= set(diff.changed)
        old = new


def diff_of(volume: Path, change) -> Diff:
    """What a change of a volume comes to; `change` is called with the volume."""
    made = []
    for number in range(2):
        if number:
            change(volume)
        made.append(volume / f".stackward-{number}")
        btrfs.snapshot_all(volume, made[-1], lambda one: not one.path.parts[0].startswith(".stackward"), read_only=True)
    return snapshot_diff.between(*made)


def test_each_kind_of_change_is_told_as_a_person_would(volume: Path) -> None:
    for name in ("gone", "renamed", "edited", "saved", "touched", "read", "mode"):
        (volume / name).write_text("before")
    (volume / "directory/deep").mkdir(parents=True)
    (volume / "directory/deep/file").write_text("x")

    def change(root: Path) -> None:
        (root / "gone").unlink()
        (root / "renamed").rename(root / "new name")
        (root / "edited").write_text("after")
        (root / "saved.tmp").write_text("as editors do")
        (root / "saved.tmp").rename(root / "saved")
        os.utime(root / "touched", ns=(1, 1))
        (root / "read").read_text()
        (root / "mode").chmod(0o600)
        (root / "new\nline").write_text("")
        (root / "directory").rename(root / "moved")
        (root / "moved/deep/file").write_text("y")

    assert diff_of(volume, change) == Diff(
        created=(b"new\nline",),
        changed=(b"edited", b"mode", b"moved/deep/file", b"saved", b"touched"),
        renamed=((b"directory", b"moved"), (b"renamed", b"new name")),
        removed=(b"gone",),
    )


def test_nested_subvolumes_are_compared_too(volume: Path) -> None:
    for name in ("stays", "goes"):
        btrfs.create_subvolume(volume / name)
        (volume / name / "f").write_text("before")

    def change(root: Path) -> None:
        (root / "stays/f").write_text("after")
        btrfs.delete(root / "goes")
        btrfs.create_subvolume(root / "comes")
        (root / "comes/f").write_text("x")

    assert diff_of(volume, change) == Diff(
        created=(b"comes", b"comes/f"), changed=(b"stays/f",), removed=(b"goes", b"goes/f")
    )


def test_all_names_of_a_file_are_told_when_it_changes(volume: Path) -> None:
    (volume / "a").write_text("x")
    os.link(volume / "a", volume / "b")
    diff = diff_of(volume, lambda root: (root / "b").write_text("y"))
    assert diff == Diff(changed=(b"a", b"b"))


def test_a_stream_that_speaks_of_what_cannot_be_is_refused() -> None:
    kind, command = sendstream.Kind, sendstream.Command
    for told in (
        [command(kind.MKFILE, b"a"), command(kind.CHMOD, b"a/b")],
        [command(kind.UNLINK, b"a"), command(kind.CHMOD, b"a")],
        [command(kind.MKFILE, b"a"), command(kind.MKFILE, b"a")],
        [command(kind.CHMOD, b"a"), command(kind.RENAME, b"b", b"a")],
    ):
        with pytest.raises(sendstream.SendStreamError):
            renaming.names(told)
