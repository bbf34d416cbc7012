from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackward.tools import manifest

NAMES = st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name and not name.startswith(b"./"))


@given(NAMES)
def test_every_name_comes_back_from_its_line(name: bytes) -> None:
    digest = "ab" * 32
    line = manifest.format_line(digest, name)
    assert line.count(b"\n") == 1
    assert manifest.parse_line(line) == (digest, name)


def test_lines_are_those_of_sha256sum(tmp_path: Path) -> None:
    names = [b"plain", b"new\nline", b"back\\slash", b"cr\rname", b"\xff\xfe", b"-dash", b"  blanks ", b"\\n"]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(name)
    theirs = subprocess.run([b"sha256sum", b"--", *names], cwd=tmp_path, capture_output=True, check=True).stdout
    ours = b"".join(manifest.format_line(*line) for line in manifest.hash_files(os.fsencode(tmp_path), names))
    assert ours == theirs
    assert [path for _, path in map(manifest.parse_line, theirs.splitlines(keepends=True))] == names


@pytest.mark.parametrize(
    "line", [b"", b"xyz  name", b"ab" * 32, b"ab" * 32 + b" name", b"\\" + b"ab" * 32 + b"  a\\qb"]
)
def test_a_line_that_sha256sum_would_refuse_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"manifest|escape|hexa|base 16"):
        manifest.parse_line(line)


def test_lines_below_a_prefix_are_those_of_that_directory_alone() -> None:
    lines = [("0" * 64, path) for path in (b".mounts/a/x", b"a-b/x", b"a/x", b"ab", b"b/a/x")]
    assert [path for _, path in manifest.below(lines, ["a", ".mounts/a"])] == [b".mounts/a/x", b"a/x"]


def test_writing_never_touches_the_file_that_was_there(tmp_path: Path) -> None:
    path, link = tmp_path / "MANIFEST.sha256", tmp_path / "link"
    path.write_text("old")
    os.link(path, link)
    manifest.write(path, [("0" * 64, b"a")])
    assert link.read_text() == "old"
    assert list(manifest.read(path)) == [("0" * 64, b"a")]
