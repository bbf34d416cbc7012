"""What a .gitignore file ignores, as git reads it (gitignore(5); git's own dir.c and wildmatch.c where that is vague).

Names are bytes. A caller walks downwards, asks for every entry and doesn't enter an ignored directory: then no file
below it can be brought back by a later `!` rule, which is git's rule too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_SPECIAL = b"*?[\\"
_CLASSES = {
    b"alnum": rb"0-9A-Za-z",
    b"alpha": rb"A-Za-z",
    b"blank": rb" \t",
    b"cntrl": rb"\x00-\x1f\x7f",
    b"digit": rb"0-9",
    b"graph": rb"\x21-\x7e",
    b"lower": rb"a-z",
    b"print": rb"\x20-\x7e",
    b"punct": rb"!-/:-@\[-`{-~",
    b"space": rb" \t-\r",
    b"upper": rb"A-Z",
    b"xdigit": rb"0-9A-Fa-f",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """One line. `anchored` rules look at the path from the file's directory, others at an entry's name only."""

    matcher: re.Pattern[bytes]
    negated: bool
    directory_only: bool
    anchored: bool


def literal(path: str) -> str:
    """A line's pattern that matches only `path`, which holds no newline."""
    escaped = re.sub(r"([\\*?\[])", r"\\\1", path)
    return escaped[:-1] + "\\ " if escaped.endswith(" ") else escaped


def parse(text: bytes) -> tuple[Rule, ...]:
    """The rules of a .gitignore file, in its order. Lines that can match nothing are left out."""
    rules = []
    for line in text.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        pattern = line.removesuffix(b"\r")
        if pattern.startswith(b"#"):
            continue
        pattern = _without_trailing_spaces(pattern)
        negated = pattern.startswith(b"!")
        pattern = pattern[negated:]
        directory_only = pattern.endswith(b"/")
        pattern = pattern[:-1] if directory_only else pattern
        anchored = b"/" in pattern
        pattern = pattern.removeprefix(b"/")
        expression = _translate(pattern)
        if pattern and expression is not None:
            rules.append(Rule(re.compile(expression, re.DOTALL), negated, directory_only, anchored))
    return tuple(rules)


def decide(rules: tuple[Rule, ...], path: bytes, *, is_directory: bool) -> bool | None:
    """Whether `path` (relative to the file's directory) is ignored; None when no rule speaks of it."""
    name = path.rpartition(b"/")[2]
    for rule in reversed(rules):
        if rule.directory_only and not is_directory:
            continue
        if rule.matcher.fullmatch(path if rule.anchored else name):
            return not rule.negated
    return None


def _without_trailing_spaces(line: bytes) -> bytes:
    """Spaces at the end go, unless a backslash keeps them."""
    keep = at = 0
    while at < len(line):
        if line[at : at + 1] == b"\\":
            at += 1
            keep = at + 1
        elif line[at : at + 1] != b" ":
            keep = at + 1
        at += 1
    return line[:keep]


def _translate(pattern: bytes) -> bytes | None:
    """A regular expression for a wildmatch pattern, or None where it can match nothing (an open bracket, say)."""
    literal = next((at for at, byte in enumerate(pattern) if byte in _SPECIAL), len(pattern))
    parts = []
    at = 0
    while at < len(pattern):
        char = pattern[at : at + 1]
        if char == b"\\":
            if at + 1 == len(pattern):
                return None
            parts.append(re.escape(pattern[at + 1 : at + 2]))
            at += 2
        elif char == b"*":
            expression, at = _stars(pattern, at, literal)
            parts.append(expression)
        elif char == b"[":
            found = _bracket(pattern, at + 1)
            if found is None:
                return None
            parts.append(found[0])
            at = found[1]
        else:
            parts.append(b"[^/]" if char == b"?" else re.escape(char))
            at += 1
    return b"".join(parts)


def _stars(pattern: bytes, at: int, literal: int) -> tuple[bytes, int]:
    """One star stays within a name; two, alone between slashes, cross them.

    Git compares the literal beginning first and matches the rest on its own: there two stars need no slash before.
    """
    end = at
    while pattern[end : end + 1] == b"*":
        end += 1
    free_before = at in (0, literal) or pattern[at - 1 : at] == b"/"
    after = pattern[end : end + 2]
    if end - at == 1 or not free_before or not (after in (b"", b"\\/") or after.startswith(b"/")):
        return b"[^/]*", end
    return (b"(?:.*/)?", end + 1) if after.startswith(b"/") else (b".*", end)


def _bracket(pattern: bytes, at: int) -> tuple[bytes, int] | None:
    """The character class after `[`, and where the pattern goes on; None when it doesn't end or names no class."""
    negated = pattern[at : at + 1] in (b"!", b"^")
    at += negated
    wanted = b""
    previous = b""
    first = True
    while first or pattern[at : at + 1] != b"]":
        first = False
        char = pattern[at : at + 1]
        if not char:
            return None
        if char == b"[" and pattern[at + 1 : at + 2] == b":" and (end := pattern.find(b"]", at + 2)) >= 0:
            name = pattern[at + 2 : end]
            if name.endswith(b":"):
                if name[:-1] not in _CLASSES:
                    return None
                wanted += _CLASSES[name[:-1]]
                previous, at = b"", end + 1
                continue
        if char == b"-" and previous and pattern[at + 1 : at + 2] not in (b"", b"]"):
            at += 1 + (pattern[at + 1 : at + 2] == b"\\")
            last = pattern[at : at + 1]
            if not last:
                return None
            wanted += _range(previous, last)
            previous = b""
        else:
            at += char == b"\\"
            previous = pattern[at : at + 1]
            if not previous:
                return None
            wanted += re.escape(previous)
        at += 1
    members = b"[^/" + wanted + b"]" if negated else b"(?!/)[" + wanted + b"]"
    return (b"(?!)" if wanted == b"" and not negated else members), at + 1


def _range(first: bytes, last: bytes) -> bytes:
    return re.escape(first) + b"-" + re.escape(last) if first <= last else b""
