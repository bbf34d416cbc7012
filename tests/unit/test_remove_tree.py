"""What is removed with a tree: all of it, and nothing that is only mounted there."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

import pytest

from stackward.tools import filesystem


@pytest.mark.parametrize("where", ["", "inside"])
def test_a_disk_that_is_mounted_in_a_tree_is_not_emptied_with_it(tmp_path: Path, where: str) -> None:
    tree, disk = tmp_path / "tree", tmp_path / "disk"
    for directory in (tree / "inside", disk):
        directory.mkdir(parents=True)
    (tree / "file").write_text("the tree's own")
    (disk / "precious").write_text("precious")
    subprocess.run(["mount", "--bind", disk, tree / where], check=True)
    try:
        with pytest.raises(OSError, match="is mounted") as refused:
            filesystem.remove_tree(tree)
        assert refused.value.errno == errno.EBUSY
    finally:
        subprocess.run(["umount", tree / where], check=True)
    assert (disk / "precious").read_text() == "precious"
    assert (tree / "file").exists()
    filesystem.remove_tree(tree)
    assert not tree.exists()
