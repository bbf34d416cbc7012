import os
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stackward.config import Settings
from stackward.core.artifacts import config_name, data_name, replaced_name
from stackward.core.errors import RefusedError
from stackward.core.model import Keep, Outcome, Policy, Problem, Stack
from stackward.core.progress import Silent
from stackward.jobs import prune
from stackward.steps import backup_root, catalog
from stackward.steps.backup.day import read_index
from stackward.steps.restore import kept
from stackward.steps.restore.home import KEPT
from stackward.steps.verification import check
from stackward.store import Store
from stackward.tools.locks import Locks
from unit.backups import config_backup, data_backup, write_files

NOW = datetime(2026, 11, 30, 3, 0, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "backups").mkdir()
    return Settings(backup_root=tmp_path / "backups", state_dir=tmp_path / "state", keep=Keep(days=7))


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "store.sqlite", now=NOW, locks=Locks(tmp_path / "locks")) as opened:
        yield opened


def stack(name, keep=None, **more):
    return Stack(name, Path("/opt/docker") / name, name, policy=Policy(keep=keep), **more)


def day(settings, days_ago, *stacks, name=None):
    at = NOW - timedelta(days=days_ago, hours=1)
    files = {one: {"f": f"{one} {days_ago}".encode()} for one in stacks}
    return data_backup(settings.backup_root, name or data_name(at), at, files)


def run(settings, store, *stacks, **more):
    return prune.run(
        settings=settings, store=store, discovery_stacks=stacks, now=NOW, run_id="r9", progress=Silent(), **more
    )


def left(settings):
    return sorted(name for name in os.listdir(settings.backup_root) if name != ".stackward-id")


def reasons(result, artifact, name=""):
    (item,) = [i for i in result.details["items"] if (i["artifact"], i["stack"]) == (artifact, name)]
    assert item["reasons"]
    return item["keep"], " ".join(item["reasons"])


def test_a_day_that_no_stack_needs_goes_and_every_item_has_a_reason(settings, store):
    old, young = day(settings, 8, "shop"), day(settings, 7, "shop")

    result = run(settings, store, stack("shop"))

    assert left(settings) == [young.name]
    assert result.artifacts == (old.name,)
    assert reasons(result, old.name, "shop")[0] is False
    assert reasons(result, young.name, "shop")[0] is True


def test_a_stack_leaves_a_day_that_another_still_needs_and_the_rest_verifies(settings, store):
    both = day(settings, 8, "shop", "wiki")
    day(settings, 1, "shop", "wiki")

    result = run(settings, store, stack("shop"), stack("wiki", Keep(days=30)))

    assert result.details["removed"] == [f"shop from {both.name}"]
    assert left(settings) == [both.name, data_name(NOW - timedelta(days=1, hours=1))]
    rewritten = catalog.find(catalog.catalog(settings, NOW), both.name)
    assert rewritten.stacks == ("wiki",)
    assert not (both / "shop").exists()
    assert check(rewritten, Silent()).outcome is Outcome.OK


def test_the_last_good_backup_of_a_stack_stays_whatever_its_age(settings, store):
    old = day(settings, 400, "shop")
    newer_but_damaged = day(settings, 300, "shop")
    store.record_verified(newer_but_damaged.name, NOW, Outcome.FAILED, 1, [""])

    run(settings, store, stack("shop"))

    assert old.exists()


def test_damage_of_one_stack_does_not_count_against_another(settings, store):
    day(settings, 400, "shop", "wiki")
    newer = day(settings, 300, "shop", "wiki")
    store.record_verified(newer.name, NOW, Outcome.FAILED, 1, ["shop"])

    result = run(settings, store, stack("shop"), stack("wiki"), dry_run=True)

    assert {(item["stack"], item["artifact"] == newer.name) for item in result.details["items"] if item["keep"]} == {
        ("shop", False),
        ("wiki", True),
    }


def test_what_was_replaced_stays_where_the_new_one_may_lack_trees(settings, store):
    at = NOW - timedelta(hours=2)
    whole = day(settings, 0, "shop", name=replaced_name(data_name(at), at))
    path = day(settings, 0, "shop")
    index = read_index(path)
    entry = replace(index.stacks["shop"], incomplete="its compose file could not be read")
    (path / "stackward.json").write_text(replace(index, stacks={"shop": entry}).to_json())

    result = run(settings, store, stack("shop"), replaced=True)

    assert whole.exists()
    assert reasons(result, whole.name) == (True, "the last good backup of shop")


def test_a_backup_that_may_lack_trees_does_not_push_out_the_last_whole_one(settings, store):
    whole = day(settings, 9, "shop")
    for ago in (1, 2):
        path = day(settings, ago, "shop")
        index = read_index(path)
        entry = replace(index.stacks["shop"], incomplete="its compose file could not be read")
        (path / "stackward.json").write_text(replace(index, stacks={"shop": entry}).to_json())

    run(settings, store, stack("shop"))

    assert whole.exists()


def test_one_dated_in_the_future_stays(settings, store):
    future = day(settings, -400, "shop")
    day(settings, 0, "shop")

    assert reasons(run(settings, store, stack("shop")), future.name, "shop")[0] is True


def test_a_held_stack_loses_nothing(settings, store):
    day(settings, 20, "shop", "wiki")
    day(settings, 0, "shop", "wiki")
    store.hold("shop", "data", "its tree shrank", NOW)

    result = run(settings, store, stack("shop"), stack("wiki"))

    assert result.details["removed"] == [f"wiki from {data_name(NOW - timedelta(days=20, hours=1))}"]
    assert all(item["keep"] for item in result.details["items"] if item["stack"] == "shop")


@pytest.mark.parametrize(
    "unsure",
    [
        stack("shop", resolved=False),
        stack("shop", problems=(Problem("shop", "no such value", key="stackward.backup.keep"),)),
        stack("another"),
    ],
)
def test_where_the_rule_is_in_doubt_everything_stays(settings, store, unsure):
    old = day(settings, 20, "shop")
    day(settings, 0, "shop")

    run(settings, store, unsure)

    assert old.exists()


def test_backups_of_a_stack_that_is_gone_go_when_that_is_said(settings, store):
    old, last = day(settings, 20, "shop"), day(settings, 10, "shop")

    run(settings, store, stack("another"), gone=True)

    assert not old.exists()
    assert last.exists()


def test_no_stack_at_all_is_taken_for_an_unmounted_disk(settings, store):
    with pytest.raises(RefusedError, match="no stack was found"):
        run(settings, store, gone=True)


def test_a_replaced_day_goes_after_24_hours_unless_it_holds_the_last_good_one(settings, store):
    name = data_name(NOW - timedelta(days=1, hours=1))
    day(settings, 1, "shop", name=replaced_name(name, NOW - timedelta(hours=25)))
    fresh = day(settings, 1, "shop", name=replaced_name(name, NOW - timedelta(hours=23)))
    only_wiki = day(settings, 1, "wiki", name=replaced_name(name, NOW - timedelta(hours=30)))
    day(settings, 1, "shop")

    run(settings, store, stack("shop"), stack("wiki"))

    assert left(settings) == sorted([name, fresh.name, only_wiki.name])

    run(settings, store, stack("shop"), stack("wiki"), replaced=True)

    assert left(settings) == sorted([name, only_wiki.name])


def test_config_backups_and_their_checksums_go_by_the_setting(settings, store):
    old = config_backup(settings.backup_root, "configs-20261101_020000.tar.gz", {"a": b"x"})
    new = config_backup(settings.backup_root, "configs-20261130_020000.tar.gz", {"a": b"x"})

    result = run(settings, store)

    assert left(settings) == [new.name, f"{new.name}.sha256"]
    assert reasons(result, old.name)[0] is False


def test_a_second_backup_of_the_day_does_not_cost_the_first_before_24_hours(settings, store):
    settings = replace(settings, keep=Keep(daily=7))
    hours = (26, 25, 3, 2)  # two of yesterday, two of tonight
    older, old, young, younger = (
        config_backup(settings.backup_root, config_name(NOW - timedelta(hours=ago)), {"shop/compose.yaml": b"x"})
        for ago in hours
    )

    run(settings, store)

    assert not older.exists()
    assert old.exists()
    assert young.exists()
    assert younger.exists()


def test_a_dry_run_says_the_same_and_changes_nothing(settings, store):
    old = day(settings, 20, "shop", "wiki")
    day(settings, 0, "shop", "wiki")
    stacks = (stack("shop"), stack("wiki", Keep(days=30)))
    before = left(settings)

    planned = run(settings, store, *stacks, dry_run=True)

    assert left(settings) == before
    assert (old / "shop").exists()
    assert not (settings.backup_root / ".stackward-id").exists()
    assert planned.details["removed"] == run(settings, store, *stacks).details["removed"]


def test_the_seeds_day_goes_only_when_all_its_stacks_do(settings, store):
    seed = settings.backup_root / "data-2026-11-01"
    write_files(seed, {"shop/f": b"x", "wiki/f": b"x"})
    day(settings, 0, "shop", "wiki")

    run(settings, store, stack("shop"), stack("wiki", Keep(days=60)))
    assert (seed / "shop").exists()

    run(settings, store, stack("shop"), stack("wiki"))
    assert not seed.exists()


def test_a_day_whose_index_cannot_be_read_stays(settings, store):
    odd = day(settings, 20, "shop")
    (odd / "stackward.json").write_text("{")
    day(settings, 0, "shop")

    assert "in doubt" in reasons(run(settings, store, stack("shop")), odd.name, "shop")[1]
    assert odd.exists()


def test_another_disk_is_refused_and_loses_nothing(settings, store):
    backup_root.claim(replace(settings, minimum_free_bytes=0), NOW)
    (settings.backup_root / ".stackward-id").write_text("another\n")
    old = day(settings, 20, "shop")
    day(settings, 0, "shop")

    with pytest.raises(RefusedError):
        run(settings, store, stack("shop"))
    assert old.exists()


def test_what_a_killed_prune_left_is_cleaned_up(settings, store):
    (settings.backup_root / ".incoming-trash-data-2026-11-01" / "shop").mkdir(parents=True)
    orphan = settings.backup_root / "configs-20261101_020000.tar.gz.sha256"
    orphan.write_text("…")
    os.utime(orphan, (NOW.timestamp() - 90000,) * 2)
    young = settings.backup_root / "configs-20261130_020000.tar.gz.sha256"
    young.write_text("…")
    os.utime(young, (NOW.timestamp() - 60,) * 2)

    run(settings, store)

    assert left(settings) == [young.name]


def test_what_a_restore_replaced_goes_after_a_week(settings, store, tmp_path):
    for run_id, days_ago in (("old", 8), ("young", 6)):
        home = tmp_path / KEPT / run_id
        home.mkdir(parents=True)
        at = (NOW - timedelta(days=days_ago)).isoformat()
        record = kept.Record(run_id, at, "shop", "a restore", (), (str(home),), done=True)
        kept.write(settings.state_dir / "kept", record)

    run(settings, store)

    assert os.listdir(tmp_path / KEPT) == ["young"]


def test_what_cannot_be_deleted_stops_nothing_else_and_is_told(settings, store, tmp_path):
    for run_id in ("stuck", "old"):
        home = tmp_path / KEPT / run_id
        home.mkdir(parents=True)
        (home / "file").touch()
        at = (NOW - timedelta(days=8)).isoformat()
        record = kept.Record(run_id, at, "shop", "a restore", (), (str(home),), done=True)
        kept.write(settings.state_dir / "kept", record)
    if subprocess.run(["chattr", "+i", tmp_path / KEPT / "stuck/file"], check=False).returncode:
        pytest.skip("no file can be made immutable here")
    try:
        result = run(settings, store)
    finally:
        subprocess.run(["chattr", "-i", tmp_path / KEPT / "stuck/file"], check=True)

    assert os.listdir(tmp_path / KEPT) == ["stuck"]
    assert result.outcome is Outcome.WARN
    assert "Operation not permitted" in result.reasons[0]
    assert run(settings, store).outcome is Outcome.OK
    assert not os.path.lexists(tmp_path / KEPT)
