"""A manifest takes no room for the lines that stay where they were."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from stackward.tools import filesystem, manifest

pytestmark = pytest.mark.btrfs


def line(digest: int, number: int) -> bytes:
    return manifest.format_line(f"{digest:064x}", b"tree/%07d" % number)


@pytest.fixture
def old(btrfs_root: Path) -> manifest.Sorted:
    path = btrfs_root / "old"
    lines = b"".join(line(number, number) for number in range(40_000))
    manifest.write(path, [manifest.Section(b"", (lines,))])
    return manifest.Sorted(path)


def rewritten(old: manifest.Sorted, edits: dict[int, bytes]) -> Path:
    """With other lines in the place of some."""
    pieces: list[manifest.Piece] = []
    at = 0
    for number, new in sorted(edits.items()):
        start = old.find(b"tree/%07d" % number)
        pieces += [manifest.Extent(old.path, at, start), new]
        at = old.line_end(start)
    pieces.append(manifest.Extent(old.path, at, os.stat(old.path).st_size))
    path = old.path.with_name("new")
    manifest.write(path, [manifest.Section(b"", tuple(pieces))])
    return path


@pytest.mark.parametrize("seed", range(20))
def test_its_lines_are_those_that_were_asked_for(old: manifest.Sorted, seed: int) -> None:
    dice = random.Random(seed)
    numbers = dice.sample(range(40_000), dice.choice([1, 10, 300]))
    changed, added = (
        manifest.format_line(digit * 64, b"tree/NUMBER" + end) for digit, end in (("7", b""), ("8", b"x"))
    )
    kinds = [changed, b"", changed + added]
    edits = {n: dice.choice(kinds[: dice.choice([1, 3])]).replace(b"NUMBER", b"%07d" % n) for n in numbers}
    expected = b"".join(edits.get(number, line(number, number)) for number in range(40_000))
    before = old.path.read_bytes()
    assert rewritten(old, edits).read_bytes() == expected
    assert old.path.read_bytes() == before


def test_changed_lines_take_only_their_blocks(old: manifest.Sorted) -> None:
    filesystem.sync_filesystem(old.path)
    new = rewritten(old, {number: line(1, number) for number in (5, 20_000, 39_999)})
    filesystem.sync_filesystem(new)
    used = subprocess.run(["btrfs", "filesystem", "du", "--raw", new], check=True, capture_output=True).stdout
    assert int(used.splitlines()[-1].split()[1]) <= 6 * 65536
    assert os.stat(new).st_size > 3_000_000
