"""What changes while a live tree is copied, and after: the part is what the tree is, and no backup before it changes."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from btrfs.test_backup_data import account, change, odd_tree, root  # noqa: F401 - a fixture
from stackward.steps.backup import copying, day, second_pass
from stackward.tools import beneath, filesystem, rsync
from stackward.tools.tree_root import TreeRoot

pytestmark = pytest.mark.btrfs


def plenty() -> float:
    return 600.0


def live(tree: Path) -> TreeRoot:
    return TreeRoot(tree, beneath.open_path(tree, beneath.DIRECTORY))


def first_night(root: Path, source: Path) -> Path:  # noqa: F811
    made = day.begin(root, "data-2026-11-21", "one", None)
    copying.first_pass(made, live(source), "a", None, ())
    final = root / "data-2026-11-21"
    made.path.rename(final)
    return final


@pytest.mark.parametrize("seed", range(12))
def test_both_passes_give_what_the_tree_is(root: Path, tmp_path: Path, seed: int) -> None:  # noqa: F811
    source = tmp_path / "live"
    odd_tree(source)
    dice = random.Random(seed)
    change(source, dice)
    base = first_night(root, source)
    before = account(base / "a")
    change(source, dice)
    made = day.begin(root, "data-2026-11-22", "two", base)
    began = filesystem.stamp()
    first = copying.first_pass(made, live(source), "a", base, ())
    change(source, dice)
    done = second_pass.copy(made, live(source), "a", (), first, began, plenty)
    assert account(made.path / "a") == account(source)
    assert account(base / "a") == before
    assert done.bytes == rsync.copy(source, tmp_path / "whole").bytes


@pytest.mark.parametrize("how", ["mode", "owner", "attribute", "content", "one name less", "nothing"])
def test_no_name_of_a_file_is_written_through(root: Path, tmp_path: Path, how: str) -> None:  # noqa: F811
    source = tmp_path / "live"
    source.mkdir()
    (source / "one").write_text("content")
    os.link(source / "one", source / "two")
    os.link(source / "one", source / "three")
    base = first_night(root, source)
    before = account(base / "a")
    made = day.begin(root, "data-2026-11-22", "two", base)
    began = filesystem.stamp()
    first = copying.first_pass(made, live(source), "a", base, ())
    if how == "mode":
        (source / "two").chmod(0o600)
    elif how == "owner":
        os.chown(source / "two", 1234, 4321)
    elif how == "attribute":
        os.setxattr(source / "two", "user.note", b"new")
    elif how == "content":
        (source / "two").write_text("something else")
    elif how == "one name less":
        (source / "one").unlink()
    done = second_pass.copy(made, live(source), "a", (), first, began, plenty)
    assert account(base / "a") == before
    assert account(made.path / "a") == account(source)
    assert done.files_changed == {"nothing": 0}.get(how, done.files_changed)


@pytest.mark.parametrize("how", ["content", "content and mode", "directory"])
def test_what_changes_between_the_passes_with_its_time_kept_is_copied(root: Path, tmp_path: Path, how: str) -> None:  # noqa: F811
    source = tmp_path / "live"
    for name in ("one", "two"):
        (source / name).mkdir(parents=True)
        (source / name / "file").write_text(name)
        for path in ("file", "."):
            os.utime(source / name / path, ns=(0, 0))
    base = first_night(root, source)
    before = account(base / "a")
    made = day.begin(root, "data-2026-11-22", "two", base)
    time.sleep(1.1)
    began = filesystem.stamp()
    first = copying.first_pass(made, live(source), "a", base, ())
    if how == "directory":
        (source / "one").rename(source / "three")
        (source / "two").rename(source / "one")
    else:
        (source / "one/file").write_text("new")
        os.utime(source / "one/file", ns=(0, 0))
    if how == "content and mode":
        (source / "one/file").chmod(0o600)
    second_pass.copy(made, live(source), "a", (), first, began, plenty)
    assert account(made.path / "a") == account(source)
    assert account(base / "a") == before


@pytest.mark.parametrize("kind", ["directory to link", "link to directory", "file to directory", "directory to file"])
def test_what_becomes_something_else_leads_nowhere(root: Path, tmp_path: Path, kind: str) -> None:  # noqa: F811
    source, outside = tmp_path / "live", tmp_path / "outside"
    for directory in (source, outside):
        directory.mkdir()
        (directory / "file").write_text("precious")
    (outside / "within").write_text("precious")
    was, is_now = kind.split(" to ")

    def make(what: str) -> None:
        place = source / "it"
        if what == "link":
            place.symlink_to(outside)
        elif what == "file":
            place.write_text("a file")
        else:
            place.mkdir()
            (place / "within").write_text("inside")

    make(was)
    base = first_night(root, source)
    made = day.begin(root, "data-2026-11-22", "two", base)
    began = filesystem.stamp()
    first = copying.first_pass(made, live(source), "a", base, ())
    if was == "directory":
        (source / "it/within").unlink()
        (source / "it").rmdir()
    else:
        (source / "it").unlink()
    make(is_now)
    second_pass.copy(made, live(source), "a", (), first, began, plenty)
    assert account(made.path / "a") == account(source)
    assert sorted(os.listdir(outside)) == ["file", "within"]
