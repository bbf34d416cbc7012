import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stackward.core.errors import DamageError, ExitCode, RefusedError, SettingsError, StackwardError
from stackward.core.model import Outcome
from stackward.core.progress import Silent
from stackward.jobs import restore
from stackward.jobs.restore import Means, Request
from stackward.steps.crashpoints import POINTS
from stackward.steps.restore import kept
from stackward.steps.restore.home import KEPT
from stackward.steps.undo import Undo
from stackward.store import Store  # noqa: F401 - the killed process uses it
from stackward.tools.locks import Locks  # noqa: F401
from unit.backups import data_backup, seal, stack_entry, tree, write_files
from unit.hosts import SmallHost

NOW = datetime(2026, 11, 3, 12, 0, tzinfo=UTC)
MADE = NOW - timedelta(hours=10)
COMPOSE = """
services:
  web:
    image: busybox
    volumes: ["./data:/data"]
"""
FILES = {
    b"a": b"old a",
    b"d/b": b"old b",
    b"d/e/c": b"old c",
    b"new\nline": b"1",
    b"caf\xe9": b"2",
    b"-n": b"3",
}


@pytest.fixture
def host(tmp_path):
    host = SmallHost(tmp_path)
    host.stack("shop", COMPOSE)
    write_files(host.settings.docker_root / "shop" / "data", FILES)
    backup(host)
    yield host
    host.store.close()


def backup(host, name="data-2026-11-03", at=MADE):
    """What `shop` has now, as a data backup, with everything that a file has."""
    root = host.settings.backup_root / name
    root.mkdir()
    subprocess.run(["cp", "-a", host.settings.docker_root / "shop" / "data", root / "shop"], check=True)
    source = host.settings.docker_root / "shop" / "data"
    return seal(root, at, stack_entry("shop", at, tree("shop", source)))


def data(host) -> Path:
    return host.settings.docker_root / "shop" / "data"


def means(host, *, run_id="r1", now=NOW, crash_point=""):
    settings = replace(host.settings, crash_point=crash_point)
    return Means(settings, None, Undo(settings.state_dir / "undo", None, crash_point), now, run_id, Silent())


def run(host, stack="shop", path=None, *, run_id="r1", now=NOW, force=True, **more):
    """`force`, since no engine can tell here whether the stack runs."""
    request = Request(stack, path, force=force, **more)
    return restore.run(request, means(host, run_id=run_id, now=now), host.discover().stacks)


def undo(host, run_id, **more):
    return restore.undo_last(host.found("shop"), means(host, run_id=run_id), force=True, **more)


def content(root) -> dict[bytes, bytes]:
    found = {}
    base = os.fsencode(root)
    for directory, _, names in os.walk(base):
        for name in names:
            with open(directory + b"/" + name, "rb") as file:
                found[(directory + b"/" + name)[len(base) + 1 :]] = file.read()
    return found


def spoil(host):
    """What somebody does to the data after the backup."""
    (data(host) / "a").write_text("changed")
    shutil.rmtree(data(host) / "d")
    (data(host) / "later").write_text("later")


def test_a_whole_stack_is_as_the_backup_has_it_and_undo_puts_back_what_was_there(host):
    spoil(host)
    spoiled = content(data(host))

    result = run(host)

    assert result.outcome is Outcome.OK
    assert content(data(host)) == FILES

    assert undo(host, "r2", dry_run=True).details["places"] == [str(data(host))]
    assert content(data(host)) == FILES
    undone = undo(host, "r2")

    assert content(data(host)) == spoiled
    assert undone.details["places"] == [str(data(host))]
    with pytest.raises(StackwardError, match="no restore of shop to undo"):
        undo(host, "r3")


def test_owners_modes_times_links_holes_and_attributes_are_as_they_were(host):
    root = data(host)
    os.chown(root / "a", 1234, 4321)
    os.chmod(root / "a", 0o4750)
    os.chmod(root, 0o711)
    os.setxattr(root / "a", b"user.colour", b"red")
    os.link(root / "a", root / "twin")
    os.symlink("/nowhere/absolute", root / "dangling")
    os.mkfifo(root / "fifo")
    with open(root / "sparse", "wb") as file:
        file.truncate(8 << 20)
    os.utime(root / "a", ns=(1, 1_000_000_007))
    backup(host, "data-2026-11-04", NOW - timedelta(minutes=1))
    shutil.rmtree(root)

    run(host)

    found = os.lstat(root / "a")
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (1234, 4321, 0o4750)
    assert found.st_mtime_ns == 1_000_000_007
    assert found.st_ino == os.lstat(root / "twin").st_ino
    assert os.getxattr(root / "a", b"user.colour") == b"red"
    assert os.stat(root).st_mode & 0o7777 == 0o711
    assert os.readlink(root / "dangling") == "/nowhere/absolute"
    assert (root / "fifo").is_fifo()
    assert os.stat(root / "sparse").st_blocks == 0


def test_a_destroyed_data_directory_behind_a_symlink_comes_back_behind_it(host, tmp_path):
    elsewhere = tmp_path / "volume" / "shop-data"
    shutil.rmtree(data(host))
    elsewhere.parent.mkdir()
    data(host).symlink_to(elsewhere)

    run(host)

    assert data(host).is_symlink()
    assert content(elsewhere) == FILES


class Idle:
    """An engine with no container: then nothing has to be forced."""

    def containers(self, *_):
        return ()


def restored(host, run_id="r1", **more):
    request = Request("shop", **more)
    return restore.run(request, replace(means(host, run_id=run_id), docker=Idle()), host.discover().stacks)


def spoil_backup(host):
    root = host.settings.backup_root / "data-2026-11-03" / "shop"
    (root / "a").write_text("damaged")
    (root / "d/b").unlink()
    (root / "planted").write_text("by another who can write to the share")
    return {path: text for path, text in FILES.items() if path not in (b"a", b"d/b")}


def test_damaged_files_are_named_and_left_out_and_all_others_are_restored(host):
    good = spoil_backup(host)
    spoil(host)

    result = restored(host)

    assert content(data(host)) == good
    assert (result.outcome, result.exit_code) == (Outcome.WARN, ExitCode.DAMAGED)
    assert "3 files left out" in result.reasons[0]
    for name, why in (("a", "is damaged"), ("d/b", "is missing"), ("planted", "has no checksum")):
        assert any(told.startswith(f"{data(host)}/{name} {why}") for told in result.details["damaged"])


def test_forced_damaged_files_are_restored_all_the_same(host):
    good = spoil_backup(host)
    spoil(host)

    result = restored(host, force=True)

    assert content(data(host)) == good | {b"a": b"damaged", b"planted": b"by another who can write to the share"}
    assert (result.outcome, result.exit_code) == (Outcome.WARN, ExitCode.OK)  # it was said beforehand, and asked for
    assert len(result.details["damaged"]) == 3


def test_a_path_is_checked_while_it_is_restored_and_damage_replaces_nothing(host):
    spoil_backup(host)
    spoil(host)
    (data(host) / "-n").unlink()

    result = restored(host, path="", overwrite=True)

    assert result.exit_code is ExitCode.DAMAGED
    found = content(data(host))
    assert found[b"a"] == b"changed"
    assert found[b"d/e/c"] == b"old c"
    assert found[b"-n"] == b"3"
    assert b"planted" not in found


def test_a_copy_elsewhere_is_checked_too(host, tmp_path):
    good = spoil_backup(host)

    result = restored(host, to=tmp_path / "out")

    assert content(tmp_path / "out/data") == good
    assert result.exit_code is ExitCode.DAMAGED


def test_a_tree_of_which_nothing_is_good_replaces_nothing(host):
    root = host.settings.backup_root / "data-2026-11-03" / "shop"
    for path in FILES:
        (root / os.fsdecode(path)).write_text("damaged")
    before = content(data(host))

    with pytest.raises(DamageError, match="no file of"):
        restored(host)

    assert content(data(host)) == before


def test_a_dry_run_names_the_damage(host):
    spoil_backup(host)

    result = restored(host, dry_run=True)

    assert result.exit_code is ExitCode.DAMAGED
    assert sorted(told.split(" ")[0] for told in result.details["damaged"]) == ["shop/a", "shop/d/b", "shop/planted"]


def test_damage_in_another_stack_does_not_matter(host):
    root = host.settings.backup_root / "data-2026-11-03"
    data_backup(host.settings.backup_root, "data-2026-11-04", MADE, {"shop": {"x": b"1"}, "wiki": {"f": b"2"}})
    (root.with_name("data-2026-11-04") / "wiki" / "f").unlink()

    assert run(host, wanted="2026-11-04").outcome is Outcome.OK
    assert content(data(host)) == {b"x": b"1"}


def test_without_docker_nobody_knows_whether_the_stack_runs_so_it_is_refused(host):
    with pytest.raises(RefusedError, match="not known whether shop is running"):
        run(host, force=False)


def test_a_path_brings_back_only_what_is_missing_and_touches_nothing_else(host):
    spoil(host)
    for name in (b"new\nline", b"caf\xe9", b"-n"):
        os.unlink(os.fsencode(data(host)) + b"/" + name)
    (data(host) / "d").mkdir()
    (data(host) / "d" / "b").write_text("mine now")
    os.utime(data(host) / "d", ns=(5, 5))
    os.chmod(data(host) / "d", 0o700)
    inode = os.stat(data(host) / "a").st_ino

    result = run(host, path="d")

    assert content(data(host)) == {b"a": b"changed", b"later": b"later", b"d/b": b"mine now", b"d/e/c": b"old c"}
    assert os.stat(data(host) / "a").st_ino == inode
    assert os.stat(data(host) / "d").st_mode & 0o777 == 0o700
    assert (result.details["left_alone"], result.details["new"]) == (1, ["d/e", "d/e/c"])


def test_overwriting_a_path_replaces_what_differs_and_undo_takes_all_of_it_back(host):
    spoil(host)
    write_files(data(host), {b"d/b": b"mine now", b"d/extra": b"stays"})
    before = content(data(host))

    run(host, path="d", overwrite=True)

    assert content(data(host) / "d") == {b"b": b"old b", b"e/c": b"old c", b"extra": b"stays"}
    assert content(data(host))[b"a"] == b"changed"

    undo(host, "r2")

    assert content(data(host)) == before


def test_a_file_of_the_same_size_and_time_that_differs_is_overwritten_too(host):
    stamp = os.stat(data(host) / "a").st_mtime_ns
    (data(host) / "a").write_bytes(b"OLD A")
    os.utime(data(host) / "a", ns=(stamp, stamp))

    run(host, path="a", overwrite=True)

    assert content(data(host))[b"a"] == b"old a"


def test_a_directory_where_a_file_was_stays_unless_overwritten(host):
    (data(host) / "a").unlink()
    write_files(data(host), {b"a/inside": b"x"})

    run(host, path="a")
    assert content(data(host))[b"a/inside"] == b"x"

    run(host, path="a", overwrite=True, run_id="r2")
    assert content(data(host))[b"a"] == b"old a"

    undo(host, "r3")
    assert content(data(host))[b"a/inside"] == b"x"


@pytest.mark.parametrize("path", ["d/b", "data/d/b", "./data/d/b", "{root}/d/b"])
def test_a_path_may_be_said_in_several_ways(host, path):
    (data(host) / "d" / "b").unlink()

    run(host, path=path.format(root=data(host)))

    assert content(data(host)) == FILES


@pytest.mark.parametrize("name", [b"new\nline", b"caf\xe9", b"-n"])
def test_odd_names_come_back(host, name):
    os.unlink(os.fsencode(data(host)) + b"/" + name)

    run(host, path=os.fsdecode(name))

    assert content(data(host)) == FILES


def test_a_path_that_leads_out_of_the_stack_is_refused(host):
    with pytest.raises(SettingsError, match="leads out"):
        run(host, path="../wiki")


def test_nothing_is_written_through_a_symlink_that_stands_where_a_directory_was(host, tmp_path):
    shutil.rmtree(data(host) / "d")
    (tmp_path / "victim").mkdir()
    (data(host) / "d").symlink_to(tmp_path / "victim")

    with pytest.raises(RefusedError, match="symbolic link"):
        run(host, path="d/b", overwrite=True)
    assert os.listdir(tmp_path / "victim") == []


def test_nothing_is_read_through_a_symlink_in_the_backup(host, tmp_path):
    write_files(tmp_path / "secret", {"key": b"x"})
    os.symlink(tmp_path / "secret", data(host) / "link")
    backup(host, "data-2026-11-04", NOW)

    with pytest.raises(StackwardError, match="holds no link/key"):
        run(host, path="link/key", to=tmp_path / "out")


def test_a_dry_run_names_the_changes_and_makes_none(host):
    spoil(host)
    before = content(data(host))

    whole = run(host, dry_run=True, force=False)
    part = run(host, path="d", dry_run=True)

    (changes,) = whole.details["trees"]
    assert (changes["new"], changes["changed"], changes["removed"]) == (4, 2, 1)
    assert any(item.startswith("*deleting") and item.endswith("later") for item in changes["items"])
    assert part.details["new"] == ["d", "d/b", "d/e", "d/e/c"]
    assert content(data(host)) == before
    assert not (host.settings.state_dir / "kept").exists()


def test_elsewhere_is_filled_and_the_stack_left_alone_also_one_that_is_gone(host, tmp_path):
    shutil.rmtree(host.settings.docker_root / "shop")

    with pytest.raises(RefusedError, match="restore config shop"):
        run(host)
    run(host, to=tmp_path / "out" / "whole")
    run(host, path="d/e", to=tmp_path / "out" / "part")

    assert content(tmp_path / "out" / "whole" / "data") == FILES
    assert content(tmp_path / "out" / "part") == {b"e/c": b"old c"}
    assert not (host.settings.docker_root / "shop").exists()


def test_a_directory_that_is_not_empty_is_not_filled(host, tmp_path):
    write_files(tmp_path / "out", {"mine": b"x"})

    with pytest.raises(RefusedError, match="not empty"):
        run(host, to=tmp_path / "out")
    with pytest.raises(SettingsError, match="within BACKUP_ROOT"):
        run(host, to=host.settings.backup_root / "out")


def test_an_older_backup_is_chosen_by_its_date_and_an_unknown_one_names_those_there_are(host):
    (data(host) / "a").write_text("newer")
    backup(host, "data-2026-11-04", NOW)

    run(host, wanted="2026-11-03")
    assert content(data(host))[b"a"] == b"old a"
    run(host, run_id="r2")
    assert content(data(host))[b"a"] == b"newer"

    with pytest.raises(StackwardError, match="2026-11-04, 2026-11-03"):
        run(host, wanted="2026-11-09")
    with pytest.raises(StackwardError, match="there are backups of: shop"):
        run(host, stack="shpo")


def test_the_seeds_backup_without_index_or_checksums_restores_with_a_remark(host):
    root = host.settings.backup_root / "data-2026-11-03"
    (root / "stackward.json").unlink()
    (root / "MANIFEST.sha256").unlink()
    spoil(host)

    result = run(host)

    assert content(data(host)) == FILES
    assert any("cannot be verified" in note for note in result.details["not_restored"])


def test_what_is_not_restored_is_said(host):
    other = host.root / "binds" / "uploads"
    other.mkdir(parents=True)
    host.stack("shop", COMPOSE.replace('["./data:/data"]', f'["./data:/data", "{other}:/uploads"]'))

    result = run(host)

    assert any(str(other) in note and "not in the backup" in note for note in result.details["not_restored"])


def test_a_tree_that_the_stack_no_longer_has_is_left_in_the_backup_with_a_warning(host):
    root = host.settings.backup_root / "data-2026-11-04"
    write_files(root, {"shop/a": b"1", ".mounts/shop/uploads/u": b"2"})
    uploads = tree(".mounts/shop/uploads", "/srv/uploads", kind="bind", mount_name="uploads")
    seal(root, NOW, stack_entry("shop", NOW, tree("shop", data(host)), uploads))

    result = run(host)

    assert result.outcome is Outcome.WARN
    assert "uploads was not restored" in result.reasons[0]
    assert content(data(host)) == {b"a": b"1"}


def test_what_was_replaced_goes_after_seven_days(host):
    spoil(host)
    run(host)
    home = host.settings.docker_root / KEPT
    assert home.is_dir()

    assert kept.expire(host.settings.state_dir / "kept", NOW + timedelta(days=6, hours=23)).gone == ()
    assert home.is_dir()
    assert len(kept.expire(host.settings.state_dir / "kept", NOW + timedelta(days=7)).gone) == 1
    assert not home.exists()
    assert content(data(host)) == FILES


def test_a_copy_that_fails_leaves_everything_as_it_was_and_nothing_behind(host):
    spoil(host)
    before = content(data(host))
    root = host.settings.backup_root / "data-2026-11-03"
    shutil.rmtree(root / "shop")
    (root / "shop").write_text("no directory")

    with pytest.raises(DamageError, match="no directory"):
        run(host)

    assert content(data(host)) == before
    assert not (host.settings.docker_root / KEPT).exists()
    assert sorted(os.listdir(data(host).parent)) == ["compose.yaml", "data"]


CRASHED = """
import sys
from unit import test_restore as t
host = t.SmallHost.__new__(t.SmallHost)
import pickle
host.settings = pickle.loads(bytes.fromhex(sys.argv[1]))
host.root = host.settings.docker_root.parent
host.store = t.Store.open(host.settings.state_dir / "s.sqlite", now=t.NOW, locks=t.Locks(host.settings.state_dir / "l"))
t.restore.run(t.Request("shop", force=True), t.means(host, crash_point=sys.argv[2]), host.discover().stacks)
"""


@pytest.mark.parametrize("point", [point for point in POINTS if point.startswith("restore-")])
def test_a_restore_that_is_killed_leaves_the_old_data_or_the_new_and_can_be_done_again(host, point):
    import pickle

    spoil(host)
    before = content(data(host))
    killed = subprocess.run(
        [sys.executable, "-c", CRASHED, pickle.dumps(host.settings).hex(), point],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        check=False,
    )
    assert killed.returncode == -9

    Undo(host.settings.state_dir / "undo", None).take_back_open()

    assert content(data(host)) == before
    run(host, run_id="r2")
    assert content(data(host)) == FILES
    assert os.listdir(host.settings.docker_root / KEPT) == ["r2"]
    assert sorted(os.listdir(data(host).parent)) == ["compose.yaml", "data"]


def test_a_link_to_another_stacks_data_is_not_restored_into_and_not_backed_up(host):
    """A container with `.:/app` can put it there."""
    host.stack("victim", COMPOSE)
    victim = host.settings.docker_root / "victim/data"
    write_files(victim, {b"own": b"the victim's"})
    shutil.rmtree(data(host))
    data(host).symlink_to(victim)

    for more in ({}, {"path": "a", "overwrite": True}):
        with pytest.raises(RefusedError, match="which is the stack victim's"):
            run(host, **more)

    assert content(victim) == {b"own": b"the victim's"}
    (tree,) = host.found("shop").trees
    assert not tree.covered
    assert "which is victim's" in tree.reason
