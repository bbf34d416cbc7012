"""Restores and prunes where trees and backups are subvolumes, or mount points."""

import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stackward.config import Settings
from stackward.core.model import Keep, Policy, Stack, Tree, TreeKind
from stackward.core.progress import Silent
from stackward.jobs import prune, restore
from stackward.jobs.restore import Means, Request
from stackward.steps import catalog
from stackward.steps.backup import day
from stackward.steps.restore import kept
from stackward.steps.undo import Undo
from stackward.steps.verification import check
from stackward.store import Store
from stackward.tools import btrfs, filesystem
from stackward.tools.locks import Locks
from unit.backups import data_backup

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)

pytestmark = pytest.mark.btrfs


@pytest.fixture
def settings(tmp_path, btrfs_root):
    return Settings(backup_root=btrfs_root, state_dir=tmp_path / "state", keep=Keep(days=7))


def means(settings, run_id):
    return Means(settings, None, Undo(settings.state_dir / "undo", None), NOW, run_id, Silent())


def stack_on(place: Path, directory: Path) -> Stack:
    tree = Tree("shop", "data", TreeKind.BIND, directory / "data", place, writable=True)
    return Stack("shop", directory, "shop", trees=(tree,))


def test_a_tree_that_is_a_subvolume_is_one_again_and_undo_brings_the_old_one_back(settings, volume, tmp_path):
    place = volume / "shop"
    btrfs.create_subvolume(place)
    (place / "f").write_text("now")
    data_backup(settings.backup_root, "data-2026-11-30", NOW - timedelta(hours=1), {"shop": {"f": b"then"}})
    stack = stack_on(place, tmp_path)

    restore.run(Request("shop", force=True), means(settings, "r1"), [stack])

    assert filesystem.is_subvolume(place)
    assert (place / "f").read_text() == "then"

    restore.undo_last(stack, means(settings, "r2"), force=True)

    assert filesystem.is_subvolume(place)
    assert (place / "f").read_text() == "now"

    kept.expire(settings.state_dir / "kept", NOW + timedelta(days=8))
    assert sorted(os.listdir(volume)) == ["shop"]


def test_a_tree_that_is_a_mount_point_is_filled_where_it_is(settings, tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    try:
        for name in ("f", "only-now"):
            (place / name).write_text("now")
        data_backup(settings.backup_root, "data-2026-11-30", NOW, {"shop": {"f": b"then", "only-then": b"then"}})
        os.chmod(settings.backup_root / "data-2026-11-30" / "shop", 0o751)
        stack = stack_on(place, tmp_path)

        restore.run(Request("shop", force=True), means(settings, "r1"), [stack])

        assert {p.name: p.read_text() for p in place.iterdir() if p.is_file()} == {"f": "then", "only-then": "then"}
        assert place.stat().st_mode & 0o777 == 0o751

        (place / "f").unlink()
        restore.run(Request("shop", "f"), means(settings, "r2"), [stack])
        assert (place / "f").read_text() == "then"
        restore.undo_last(stack, means(settings, "r3"))
        restore.undo_last(stack, means(settings, "r4"), force=True)

        assert {p.name: p.read_text() for p in place.iterdir() if p.is_file()} == {"f": "now", "only-now": "now"}
    finally:
        subprocess.run(["umount", place], check=True)


def test_prune_of_days_that_are_read_only_subvolumes(settings, tmp_path):
    stack = Stack("shop", tmp_path, "shop")
    long = Stack("wiki", tmp_path, "wiki", policy=Policy(keep=Keep(days=60)))
    for days_ago, stacks in ((40, ("shop",)), (20, ("shop", "wiki")), (0, ("shop", "wiki"))):
        at = NOW - timedelta(days=days_ago, hours=1)
        made = day.begin(settings.backup_root, "tmp", f"r{days_ago}", None)
        path = settings.backup_root / f"data-{at:%Y-%m-%d}"
        source = data_backup(tmp_path, path.name, at, {one: {"f": one.encode()} for one in stacks})
        subprocess.run(["cp", "-a", f"{source}/.", made.path], check=True)
        btrfs.set_read_only(made.path, read_only=True)
        os.rename(made.path, path)
    with Store.open(tmp_path / "s.sqlite", now=NOW, locks=Locks(tmp_path / "locks")) as store:
        result = prune.run(
            settings=settings,
            store=store,
            discovery_stacks=(stack, long),
            now=NOW,
            run_id="r9",
            progress=Silent(),
        )

    assert result.reasons == ()
    left = catalog.catalog(settings, NOW)
    assert [(a.name.name, a.stacks) for a in left] == [
        ("data-2026-11-30", ("shop", "wiki")),
        ("data-2026-11-10", ("wiki",)),
    ]
    assert all(btrfs.is_read_only(a.path) and check(a, Silent()).damaged == 0 for a in left)
    assert sorted(n for n in os.listdir(settings.backup_root) if n.startswith(".incoming")) == []
