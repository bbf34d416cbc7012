"""Compose's interpolation of variables, as far as paths need it: `$X`, `${X}`, `${X:-default}`, `${X:+other}`, `$$`, nested."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"[A-Za-z_]\w*")
_HOW = re.compile(r":?[-?+]")
_DEPTH = 20


def interpolate(text: str, variables: Mapping[str, str], depth: int = 0) -> str:
    """Replace variables; anything that is not in the right form stays as it is."""
    done, at = [], 0
    while (found := text.find("$", at)) >= 0:
        done.append(text[at:found])
        value, at = _one(text, found, variables, depth)
        done.append(value)
    return "".join([*done, text[at:]])


def _one(text: str, at: int, variables: Mapping[str, str], depth: int) -> tuple[str, int]:
    """The value of what begins with the `$` there, and where the text goes on."""
    if text.startswith("$$", at):
        return "$", at + 2
    if match := _NAME.match(text, at + 1):
        return variables.get(match[0], ""), match.end()
    end = _closing(text, at + 1) if text.startswith("${", at) and depth < _DEPTH else -1
    name = _NAME.match(text, at + 2)
    if end < 0 or name is None or name.end() > end:
        return "$", at + 1
    inner = text[name.end() : end]
    how = _HOW.match(inner)
    if inner and how is None:
        return "$", at + 1
    word = how[0] if how else ""
    found = variables.get(name[0])
    there = found is not None and (bool(found) or not word.startswith(":"))
    if (word.endswith("+") and there) or (word.endswith("-") and not there):
        return interpolate(inner[len(word) :], variables, depth + 1), end + 1
    return "" if word.endswith("+") else found or "", end + 1


def _closing(text: str, brace: int) -> int:
    """The position of the closing brace, or -1."""
    depth = 0
    for at in range(brace, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if not depth:
            return at
    return -1
