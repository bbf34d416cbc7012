"""What changed between two snapshots, applied to a copy of the first, gives what a full walk of the second gives."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from btrfs.life import Life, account
from stackward.core import gitignore
from stackward.core.patterns import rsync_filters
from stackward.steps.backup import apply_changes, changes, in_place
from stackward.tools import btrfs, manifest, rsync, sendstream

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
    _live_and_compare(volume, btrfs_root, tree, patterns, seed)


@pytest.mark.parametrize("seed", range(300, 306))
@pytest.mark.parametrize("tree", ["", "stack/data"], ids=["whole", "within"])
def test_files_that_are_written_in_place_are_what_a_full_copy_gives(
    volume: Path, btrfs_root: Path, monkeypatch: pytest.MonkeyPatch, tree: str, seed: int
) -> None:
    rewrite = in_place.rewrite
    written = 0

    def counted(source: bytes, target: bytes, extents: Iterable[in_place.Extent]) -> tuple[str, int]:
        nonlocal written
        result = rewrite(source, target, extents)
        written += 1
        assert result[0] == manifest.hash_file(source)
        return result

    monkeypatch.setattr(in_place, "SMALLEST_BYTES", 0)
    monkeypatch.setattr(in_place, "rewrite", counted)
    _live_and_compare(volume, btrfs_root, tree, (), seed, of_extents=True)
    assert written > 3


def _live_and_compare(
    volume: Path, btrfs_root: Path, tree: str, patterns: tuple[str, ...], seed: int, *, of_extents: bool = False
) -> None:
    live = volume / "live"
    btrfs.create_subvolume(live)
    (live / tree).mkdir(parents=True, exist_ok=True)
    inside, outside = Life(live / tree, seed, of_extents=of_extents), Life(live, 1000 + seed)
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
        apply_changes.apply(found, new / tree, new, btrfs_root / "copy", rules, before=old if of_extents else None)
        rsync.copy(new / tree, btrfs_root / f"full-{number}", filters=filters)
        assert account(btrfs_root / "copy") == account(btrfs_root / f"full-{number}"), f"round {number}"
        old = new
