from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackward.tools import manifest

NAMES = st.binary(min_size=1, max_size=40).filter(
    lambda name: b"\0" not in name and not {b"", b".", b".."} & set(name.split(b"/"))
)


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


def written(path: Path, names: list[bytes]) -> manifest.Sorted:
    lines = b"".join(manifest.format_line(f"{number:064x}", name) for number, name in enumerate(sorted(names)))
    manifest.write(path, [manifest.Section(b"", (lines,))])
    return manifest.Sorted(path)


@given(st.sets(NAMES, max_size=30), NAMES)
def test_bisection_finds_the_first_line_that_is_not_before_a_path(
    tmp_path_factory: pytest.TempPathFactory, names: set[bytes], wanted: bytes
) -> None:
    lines = written(tmp_path_factory.mktemp("m") / "MANIFEST.sha256", list(names))
    found = lines.line(lines.find(wanted))
    assert (found and found[1]) == min((name for name in names if name >= wanted), default=None)


def test_lines_below_a_directory_are_those_of_that_directory_alone(tmp_path: Path) -> None:
    lines = written(tmp_path / "m", [b".mounts/a/x", b"a-b/x", b"a/x", b"a/y/z", b"ab", b"b/a/x"])
    assert [path for _, path in lines.lines(lines.below(b"a"))] == [b"a/x", b"a/y/z"]
    assert lines.count(lines.below(b"a")) == 2
    assert list(lines.lines(lines.below(b"c"))) == []


def test_an_empty_manifest_has_no_lines(tmp_path: Path) -> None:
    lines = written(tmp_path / "m", [])
    assert lines.line(lines.find(b"a")) is None
    assert lines.count(lines.below(b"a")) == 0


def test_sections_are_written_sorted_whatever_they_are_made_of(tmp_path: Path) -> None:
    old = written(tmp_path / "old", [b"b/x", b"c/x"])
    line = manifest.format_line("1" * 64, b"a/x")
    with open(tmp_path / "spool", "w+b") as spool:
        spool.write(manifest.format_line("2" * 64, b"d/x"))
        sections = [
            manifest.Section(b"d/", (spool,)),
            manifest.Section(b"b/", (old.below(b"b"),)),
            manifest.Section(b"a/", (line,)),
        ]
        manifest.write(tmp_path / "new", sections)
    assert [path for _, path in manifest.read(io.BytesIO((tmp_path / "new").read_bytes()))] == [b"a/x", b"b/x", b"d/x"]


def test_a_manifest_that_shrank_meanwhile_is_an_error(tmp_path: Path) -> None:
    old = written(tmp_path / "old", [b"b/x", b"c/x"])
    with pytest.raises(ValueError, match="shorter"):
        manifest.write(tmp_path / "new", [manifest.Section(b"", (manifest.Extent(old.path, 0, 10_000),))])


def test_writing_never_touches_the_file_that_was_there(tmp_path: Path) -> None:
    path, link = tmp_path / "MANIFEST.sha256", tmp_path / "link"
    path.write_text("old")
    os.link(path, link)
    written(path, [b"a"])
    assert link.read_text() == "old"
    assert [name for _, name in manifest.read(io.BytesIO(path.read_bytes()))] == [b"a"]


def test_a_manifest_that_others_cut_short_raises(tmp_path: Path) -> None:
    """A mapped one would end the process (SIGBUS)."""
    found = written(tmp_path / "m", [b"%06d" % number for number in range(20_000)])
    os.truncate(tmp_path / "m", 5000)
    for act in (
        lambda: found.find(b"019999"),
        lambda: found.line(1_000_000),
        lambda: list(found.lines(manifest.Extent(tmp_path / "m", 0, 1_000_000))),
        lambda: found.count(manifest.Extent(tmp_path / "m", 0, 1_000_000)),
    ):
        with pytest.raises(ValueError, match="shorter than it was"):
            act()


def test_what_is_no_manifest_is_neither_waited_for_nor_read_without_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="no regular file"):
        manifest.Sorted(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic links"):
        manifest.Sorted(tmp_path / "link")
    (tmp_path / "long").write_bytes(b"x" * (1 << 20))
    with pytest.raises(ValueError, match="line of more than"):
        manifest.Sorted(tmp_path / "long").find(b"a")
    with pytest.raises(ValueError, match="line 1"):
        list(manifest.read(io.BytesIO(b"x" * (1 << 20) + b"\n")))
    line = manifest.format_line("0" * 64, b"y")
    assert list(manifest.raw_lines(io.BytesIO(b"x" * 40_000 + b"\n" + line)))[1] == line


@given(
    st.lists(
        st.binary(min_size=1, max_size=2000).filter(
            lambda p: b"\0" not in p and not {b"", b".", b".."} & set(p.split(b"/"))
        ),
        unique=True,
        max_size=30,
    )
)
def test_bisection_finds_what_a_scan_finds(tmp_path_factory: pytest.TempPathFactory, paths: list[bytes]) -> None:
    paths = sorted(paths)
    found = written(tmp_path_factory.mktemp("m") / "m", paths)
    lines = list(found.lines(manifest.Extent(found.path, 0, found.path.stat().st_size)))
    assert [path for _, path in lines] == paths
    for path in paths:
        line = found.line(found.find(path))
        assert line is not None
        assert line[1] == path
        after = found.line(found.find(path + b"\0"))
        assert (after[1] if after else None) == next((other for other in paths if other > path), None)
