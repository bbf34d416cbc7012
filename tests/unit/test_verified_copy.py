"""Copies that have to be whole: a file that cannot be read ends them, instead of being left out unseen."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from stackward.steps import copy_ends, verified_copy
from stackward.steps.restore import placing


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two files, of which the disk gives only one."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "good").write_text("good")
    (tree / "lost").write_text("lost")
    lost = (tree / "lost").stat().st_ino
    content = copy_ends.CopyEnds._content

    def read(self: copy_ends.CopyEnds, here: int, *args: int, **options: object) -> str:
        if os.fstat(here).st_ino == lost:
            raise copy_ends.UnreadableError("cannot be read: Input/output error")
        return content(self, here, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(copy_ends.CopyEnds, "_content", read)
    return tree


def test_a_copy_that_is_kept_has_every_file_or_is_none(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot be read") as failed:
        verified_copy.copy(tree, tmp_path / "kept")
    assert failed.value.errno == errno.EIO
    assert os.fsdecode(failed.value.filename) == str(tree / "lost")


def test_what_takes_a_place_has_every_file_or_takes_none(tree: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "lost").write_text("from before")
    with pytest.raises(OSError, match="cannot be read"):
        placing.bring(tree, place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["place", "tree"]
    assert (place / "lost").read_text() == "from before"


def test_another_copy_names_what_it_could_not_read(tree: Path, tmp_path: Path) -> None:
    copier = verified_copy.Copier()
    copier.copy(tree, tmp_path / "copy")
    assert [one.path for one in copier.result.left_out] == [b"lost"]
    assert os.listdir(tmp_path / "copy") == ["good"]
