"""Gitignore patterns mean to rsync what they mean to git: both are run on the same tree and asked."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stackward.core.patterns import rsync_filters

_NAMES = ["a", "b", "ab", "A", "a b", "*", "a*", "\\", "[a]", "!a", "#a", "a.log", " a"]


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """Every name as a file and, with a suffix, as a directory, three levels deep for the short ones."""
    root = tmp_path_factory.mktemp("tree")
    for name in _NAMES:
        (root / name).write_text("")
    for first in ("d", "ad", "*d", "a b d"):
        for second in _NAMES:
            _touch(root / first / second)
        for second, third in itertools.product(("a", "d", "ab"), ("a", "b", "*", "d")):
            _touch(root / first / f"{second}_" / third)
        _touch(root / first / "d" / "d" / "d" / "a")
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    return root


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")


def _kept_by_git(tree: Path, lines: list[str], scratch: Path) -> set[str]:
    ignore = scratch / "ignore"
    ignore.write_text("".join(f"{line}\n" for line in lines))
    command = ["git", "-C", str(tree), "ls-files", "-z", "--others", f"--exclude-from={ignore}"]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.rstrip("\0").split("\0"))


def _kept_by_rsync(tree: Path, lines: list[str], scratch: Path) -> set[str]:
    filters = [f"--filter={rule}" for rule in ["- /.git/", *rsync_filters(lines)]]
    command = ["rsync", "-r", "--dry-run", "--out-format=%n", *filters, f"{tree}/", f"{scratch}/nowhere"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.rstrip("\n").split("\n")
    return {name for name in listed if not name.endswith("/")} or {""}


def _kept(tree: Path, lines: list[str], scratch: Path) -> set[str]:
    kept = _kept_by_rsync(tree, lines, scratch)
    assert kept == _kept_by_git(tree, lines, scratch)
    return kept - {""}


_component = st.one_of(
    st.sampled_from(["**", "*", "d", "a", "ad", "a_", "a b d", r"\*d", "d*", "*d", "?d"]),
    st.lists(
        st.sampled_from(["a", "b", "d", "A", "_", " ", "*", "**", "?", r"\*", r"\?", r"\[", r"\\", r"\a", "]", "[ab]"])
        | st.sampled_from(["[!a]", "[^a]", "[]a]", "[[:upper:]]", "[a-c]", "[**]", "[*?]", r"[\]a]", "[[a]"]),
        min_size=1,
        max_size=4,
    ).map("".join),
)
_pattern = st.builds(
    lambda sign, start, components, end: sign + start + "/".join(components) + end,
    st.sampled_from(["", "", "", "!"]),
    st.sampled_from(["", "", "/", r"\!", r"\#"]),
    st.lists(_component, min_size=1, max_size=4),
    st.sampled_from(["", "", "/", " ", "\\ ", "/**"]),
)


@settings(max_examples=150, deadline=None)
@given(lines=st.lists(_pattern, min_size=1, max_size=4))
@example(lines=["d/**/a"])
@example(lines=["/**/d/**/a"])
@example(lines=["*", "!d/", "!d/a"])
@example(lines=["**/d/"])
@example(lines=["a**b", "a***"])
@example(lines=[r"\*"])
@example(lines=["\\\\"])
@example(lines=["[**]*"])
@example(lines=["d/**", "!d/a_/", "!d/a_/**"])
@example(lines=["**/**"])
@example(lines=["**/"])
@example(lines=[" a"])
def test_rsync_leaves_out_what_git_ignores(tree, tmp_path_factory, lines):
    _kept(tree, lines, tmp_path_factory.getbasetemp())


def test_a_pattern_without_a_slash_matches_at_any_depth_and_one_with_a_slash_from_the_root(tree, tmp_path):
    assert "d/a.log" not in _kept(tree, ["*.log"], tmp_path)
    assert {"a.log", "d/a.log"} & _kept(tree, ["/*.log"], tmp_path) == {"d/a.log"}


def test_a_later_negation_brings_back_but_not_from_an_excluded_directory(tree, tmp_path):
    assert "a.log" in _kept(tree, ["*.log", "!a.log"], tmp_path)
    assert "d/a.log" not in _kept(tree, ["d/", "!a.log"], tmp_path)


def test_comments_blank_lines_and_line_ends_of_windows_do_not_count(tree, tmp_path):
    assert rsync_filters(["# a", "", "   ", "/", "!"]) == []
    assert "a.log" not in _kept(tree, ["*.log\r"], tmp_path)


@pytest.mark.parametrize(
    "line",
    ["./a", "a/../b", "a//b", "[ab", "a\\", "a\nb", "/".join(["a/**"] * 8 + ["b"]), "[[:none:]]", r"a\/b", "a[/]b"],
)
def test_a_line_that_can_match_nothing_is_refused_with_the_line(line):
    with pytest.raises(ValueError, match="the pattern '") as caught:
        rsync_filters(["*.log", line])
    assert repr(line) in str(caught.value)
