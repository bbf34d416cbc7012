"""What changed between two snapshots, applied to a copy of the first, gives what a full walk of the second gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from btrfs.life import Life, account
from stackward.core import gitignore
from stackward.core.patterns import rsync_filters
from stackward.steps import changes
from stackward.tools import btrfs, rsync, sendstream

pytestmark = pytest.mark.btrfs
ROUNDS = 4


@pytest.mark.parametrize("seed", [0, 1, 2, 202, 213])  # the last two met hard links of which only the time changed
@pytest.mark.parametrize(
    ("tree", "patterns"),
    [("", ()), ("stack/data", ()), ("", ("*.tmp", "/cache/", "!keep.tmp", "deep/**/a"))],
    ids=["whole", "within", "excludes"],
)
def test_an_account_of_changes_gives_what_a_full_copy_gives(
    volume: Path, btrfs_root: Path, tree: str, patterns: tuple[str, ...], seed: int
) -> None:
    live = volume / "live"
    btrfs.create_subvolume(live)
    (live / tree).mkdir(parents=True, exist_ok=True)
    inside, outside = Life(live / tree, seed), Life(live, 1000 + seed)
    inside.go_on(60)
    filters = rsync_filters(patterns)
    rules = gitignore.parse("\n".join(patterns).encode())
    old = volume / "snapshot-0"
    btrfs.snapshot(live, old, read_only=True)
    rsync.copy(old / tree, btrfs_root / "copy", filters=filters)
    for number in range(1, ROUNDS + 1):
        inside.go_on(25)
        if tree and number == ROUNDS:
            outside.go_on(3)  # may move the tree itself, or a directory on the way to it
        new = volume / f"snapshot-{number}"
        btrfs.snapshot(live, new, read_only=True)
        try:
            found = changes.account(sendstream.changes_between(old, new), tree.encode())
        except sendstream.SendStreamError:
            assert tree
            assert number == ROUNDS
            return
        changes.apply(found, new / tree, new, btrfs_root / "copy", rules)
        rsync.copy(new / tree, btrfs_root / f"full-{number}", filters=filters)
        assert account(btrfs_root / "copy") == account(btrfs_root / f"full-{number}"), f"round {number}"
        old = new
