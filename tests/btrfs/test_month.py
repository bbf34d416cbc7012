"""A month of nights with their mishaps: whatever is listed at its end is what was, and what was promised is listed."""

from __future__ import annotations

import os
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from btrfs.ledger import left_over
from btrfs.living_host import Accounts, LivingHost, sealed
from btrfs.month import Month, same
from stackward.core.errors import ExitCode
from stackward.steps.restore import kept

pytestmark = pytest.mark.btrfs


@pytest.mark.parametrize(("where", "seed"), [("btrfs", 1), ("btrfs", 2), ("links", 1)])
def test_what_is_listed_after_a_month_is_what_was(
    request: pytest.FixtureRequest, tmp_path: Path, volume: Path, where: str, seed: int
) -> None:
    root = request.getfixturevalue("btrfs_root") if where == "btrfs" else tmp_path / "backup"
    root.mkdir(exist_ok=True)
    month = Month(LivingHost(tmp_path, root, volume), seed)
    over = month.pass_by()
    assert left_over(month.host, month.ledger) == []
    ours = {"shop", "mail", ".stackward", ".nightly", ".nightly/shop", ".nightly/mail"}
    assert subvolumes_beside_listed(volume) == ours
    every_backup_is_what_was(month, over, tmp_path / "restored")
    every_snapshot_is_what_was(month, over)
    the_newest_backup_can_take_its_place(month, over + timedelta(hours=1))
    kept.expire(month.host.settings.state_dir / "kept", over + timedelta(days=8))
    assert {path.name for path in volume.iterdir()} == {"shop", "mail", "plain", ".stackward", ".nightly"}
    assert {path.name for path in (volume / "shop").iterdir()} == {"data", "db"}
    assert month.host.undo.open_count() == 0


def every_backup_is_what_was(month: Month, now: datetime, restored: Path) -> None:
    """Of all that are listed, also those that were replaced; a damaged file is named, and nothing but that is missing."""
    damaged = set()
    for name, index in month.ledger.listed().items():
        for stack, entry in index.stacks.items():
            to = restored / name / stack
            result = month.host.restore(stack, name, now, to=to)
            expected = month.ledger.lived(stack, datetime.fromisoformat(entry.at))
            if (name, stack) in month.ledger.damaged:
                damaged.add((name, stack))
                assert result.exit_code == ExitCode.DAMAGED
                expected = without_damaged(expected, to, result.details["damaged"])
            else:
                assert result.exit_code == ExitCode.OK
            same({path.name: sealed(path) for path in to.iterdir()}, expected)
    assert damaged == month.ledger.damaged


def without_damaged(accounts: Accounts, to: Path, told: list[str]) -> Accounts:
    """What is left where one file turned; `told` names it, as its place would have been below `to`."""
    named = [
        (tree, path)
        for tree, paths in accounts.items()
        for path in paths
        if any(one.startswith(f"{to / tree / os.fsdecode(path)} ") for one in told)
    ]
    assert len(named) == len(told) == 1
    [(tree, path)] = named
    return accounts | {tree: {one: account for one, account in accounts[tree].items() if one != path}}


def every_snapshot_is_what_was(month: Month, now: datetime) -> None:
    for name in sorted(month.ledger.snapshots):
        for stack in month.host.all_stacks:
            month.went_back_to_snapshot(name, stack, now)


def the_newest_backup_can_take_its_place(month: Month, now: datetime) -> None:
    for stack, days in month.ledger.backups.items():
        month.went_back_to_backup(max(days), stack, now)


def subvolumes_beside_listed(volume: Path) -> set[str]:
    """Also without what a restore replaced not a week ago."""
    listed = subprocess.run(["btrfs", "subvolume", "list", volume], check=True, capture_output=True, text=True).stdout
    paths = {line.split(" path ")[1] for line in listed.splitlines()}
    elsewhere = (".stackward/backup/", ".stackward/snapshots/", ".stackward-kept/", ".nightly/.stackward-kept/")
    return {path for path in paths if not path.startswith(elsewhere)}
