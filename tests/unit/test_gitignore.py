from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stackward.core import gitignore

ATOMS = [
    "*",
    "**",
    "?",
    "/",
    "**/",
    "/**",
    "a",
    "b",
    "ab",
    "c.d",
    ".",
    "!",
    "\\",
    " ",
    "#",
    "-",
    "\\*",
    "\\ ",
    "^",
    "é",
    "\t",
]
ATOMS += ["[", "]", "[ab]", "[!a]", "[a-c]", "[]a]", "[[:alpha:]]", "[[:x:]]", "[a-", "[^b]", "[\\]]", "[b-a]", "[--0]"]
ATOMS += ["[[:a]", "\r"]
NAMES = ["a", "b", "ab", "c.d", "abc", "*", "a b", "é", "]", "-", "\\", "[", "!a", "#", "a ", "^"]


@pytest.fixture(scope="module")
def repository():
    """A git repository whose every directory exists, so that git knows which paths are directories."""
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(["git", "init", "-q", place], check=True)
        yield Path(place)


def walked(root: Path) -> list[tuple[bytes, bool]]:
    """Every path below `root` less .git, and whether it is a directory."""
    top = os.fsencode(root)
    found = []
    for folder, directories, files in os.walk(top):
        if b".git" in directories:
            directories.remove(b".git")
        for name in directories + files:
            full = os.path.join(folder, name)
            found.append((os.path.relpath(full, top), os.path.isdir(full) and not os.path.islink(full)))
    return found


def as_git_says(root: Path, paths: list[bytes]) -> set[bytes]:
    done = subprocess.run(
        ["git", "-C", root, "check-ignore", "--no-index", "-z", "--stdin"],
        input=b"".join(path + b"\0" for path in paths),
        capture_output=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return {path for path in done.stdout.split(b"\0") if path}


def as_we_say(text: bytes, paths: list[tuple[bytes, bool]]) -> set[bytes]:
    rules = gitignore.parse(text)
    ignored = set()
    for path, kind in sorted(paths):
        parents = path.split(b"/")[:-1]
        above = any(b"/".join(parents[: depth + 1]) in ignored for depth in range(len(parents)))
        if above or gitignore.decide(rules, path, is_directory=kind):
            ignored.add(path)
    return ignored


@pytest.fixture(scope="module")
def paths(repository):
    for one in NAMES:
        (repository / one).mkdir()
        for two in NAMES:
            (repository / one / two).write_text("")
    for path in ("d/a/b/c.d/ab", "d/ab/a/b", "d/abc/b", "e/a"):
        (repository / path).parent.mkdir(parents=True, exist_ok=True)
        (repository / path).write_text("")
    os.symlink("d", repository / "link")
    Path(os.fsdecode(os.fsencode(repository) + b"/d/caf\xe9")).write_text("")
    return walked(repository)


PATTERN = st.lists(st.sampled_from(ATOMS), min_size=1, max_size=6).map("".join)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PATTERN, min_size=1, max_size=4))
@example(["a/b**/c.d"])
@example(["d/a**"])
@example(["*", "!*/", "!c.d"])
@example(["a/", "!a/b"])
@example(["/a", "!b", "\\!a", "\\#", "a\\ ", "a "])
@example(["[[:space:]]", "[]-]", "[!]a]"])
@example(["link/", "link"])
@example(["//a", "/", "!", "!/", "a//b"])
@example(["\ufeffa"])
@example(["[a\\", "[a-\\"])
def test_it_ignores_what_git_ignores(repository, paths, patterns):
    text = "\n".join(patterns).encode()
    (repository / ".gitignore").write_bytes(text)
    known = [*paths, (b".gitignore", False)]
    ours, gits = as_we_say(text, known), as_git_says(repository, [path for path, _kind in known])
    assert sorted(ours - gits) == []
    assert sorted(gits - ours) == []


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40), st.binary(min_size=1, max_size=20))
def test_any_bytes_parse(text, path):
    gitignore.decide(gitignore.parse(text), path, is_directory=False)


def test_names_that_are_not_utf8_match():
    rules = gitignore.parse(b"*.\xe9\n")
    assert gitignore.decide(rules, b"x.\xe9", is_directory=False) is True
    assert gitignore.decide(rules, b"x.e", is_directory=False) is None


def test_a_later_rule_wins_and_silence_is_told_from_a_no():
    rules = gitignore.parse(b"*.log\n!keep.log\n")
    assert gitignore.decide(rules, b"a.log", is_directory=False) is True
    assert gitignore.decide(rules, b"keep.log", is_directory=False) is False
    assert gitignore.decide(rules, b"other", is_directory=False) is None
