"""Gitignore lines as rsync filter rules.

Git takes the last line that matches, rsync the first: the order is reversed. Both stop at an excluded directory, so a
negated line cannot bring back what lies in one. Wildcards are the same code in both (wildmatch), but not everything
around them: what `**` means, where a pattern is anchored, when a backslash escapes.
"""

from __future__ import annotations

import re
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CLASSES = "alnum|alpha|blank|cntrl|digit|graph|lower|print|punct|space|upper|xdigit"
_TOKEN = re.compile(
    rf"""(?P<slash>/)
    | (?P<stars>\*+)
    | (?P<any>\?)
    | (?P<bracket>\[[!^]?\]?(?:\[:(?:{_CLASSES}):\]|\\.|[^\]\\[/]|\[(?!:))*\])
    | \\(?P<escaped>[^/])
    | (?P<literal>[^\\\[])""",
    re.VERBOSE | re.DOTALL,
)
# Each `/**/` within a path doubles its rules.
_MOST_ANY_DEPTH = 6


class _Component(NamedTuple):
    """A path component: `wild` is how rsync reads it in a pattern with wildcards, `plain` in one without (else None)."""

    wild: str
    plain: str | None
    any_depth: bool = False


def rsync_filters(patterns: Sequence[str]) -> list[str]:
    """Rules for `rsync --filter`, one each, that leave out of a transfer what these gitignore lines ignore.

    The root of the transfer stands for the directory that holds the .gitignore. Raises ValueError, with the line, for one
    that can match nothing or that rsync has no words for.
    """
    return [rule for line in reversed(patterns) for rule in _rules(line)]


def _rules(line: str) -> Iterator[str]:
    pattern = _without_trailing_blanks(line.removesuffix("\r"))
    if not pattern or pattern.startswith("#"):
        return
    sign = "+" if pattern.startswith("!") else "-"
    pattern = pattern.removeprefix("!")
    only_directories = "/" if pattern.endswith("/") else ""
    pattern = pattern.removesuffix("/")
    if not pattern:
        return
    components = _components(line, pattern)
    paths = _paths(line, components) if len(components) > 1 else iter([_path(components)])
    for path in paths:
        yield f"{sign} {path}{only_directories}"


def _without_trailing_blanks(line: str) -> str:
    """Trailing blanks do not count, but for one that a backslash escapes."""
    stripped = line.rstrip(" ")
    escapes = (len(stripped) - len(stripped.rstrip("\\"))) % 2 and len(stripped) < len(line)
    return stripped + " " if escapes else stripped


def _components(line: str, pattern: str) -> list[_Component]:
    """The pattern at its slashes; an empty first one stands for a leading slash."""
    if re.search(r"[\n\0]", pattern):
        raise ValueError(f"the pattern {line!r} must be one line")
    components: list[_Component] = []
    tokens: list[re.Match[str]] = []
    position = 0
    while position < len(pattern):
        token = _TOKEN.match(pattern, position)
        if token is None:
            raise ValueError(
                f"the pattern {line!r} is not one: a bracket is not closed, or a backslash escapes nothing"
            )
        position = token.end()
        if token["slash"]:
            components.append(_component(tokens))
            tokens = []
        else:
            tokens.append(token)
    return [*components, _component(tokens)]


def _component(tokens: list[re.Match[str]]) -> _Component:
    if len(tokens) == 1 and len(tokens[0]["stars"] or "") > 1:
        return _Component("**", None, any_depth=True)
    literals = [token["escaped"] or token["literal"] or "" for token in tokens]
    is_plain = all(literal and literal not in "*?[" for literal in literals)
    wild = "".join(_wild(token, literal) for token, literal in zip(tokens, literals, strict=True))
    return _Component(wild, "".join(literals) if is_plain else None)


def _wild(token: re.Match[str], literal: str) -> str:
    """Two asterisks never stand side by side: rsync would take them for its `**` wherever they are."""
    if token["stars"]:
        return "*"
    if token["bracket"]:
        return re.sub(r"(?<=\*)\*", r"\\*", token["bracket"])
    if literal:
        return f"[{literal}]" if literal in "*?[" else "\\\\" if literal == "\\" else literal
    return "?"


def _paths(line: str, components: list[_Component]) -> Iterator[str]:
    """Rsync's patterns for a path: `a/**/b` is `a/b` as well, which rsync's `**` does not say."""
    if not components[0].wild:
        components = components[1:]
    if any(component.plain in ("", ".", "..") for component in components):
        raise ValueError(f"the pattern {line!r} can match nothing: a part of it is empty, '.' or '..'")
    anchor = "" if components[0].any_depth else "/"
    squeezed = [
        component
        for component, before in zip(components, [None, *components], strict=False)
        if not (component.any_depth and before and before.any_depth)
    ]
    if not anchor:
        squeezed = squeezed[1:]
    if not squeezed:
        yield "*"
        return
    optional = [index for index, component in enumerate(squeezed[:-1]) if component.any_depth]
    if len(optional) > _MOST_ANY_DEPTH:
        raise ValueError(f"the pattern {line!r} has more than {_MOST_ANY_DEPTH} times '/**/'")
    for kept in product((True, False), repeat=len(optional)):
        dropped = {index for index, keep in zip(optional, kept, strict=True) if not keep}
        yield anchor + _path([component for index, component in enumerate(squeezed) if index not in dropped])


def _path(components: list[_Component]) -> str:
    """For rsync a backslash escapes in a pattern that has a wildcard, and is itself in one that has none."""
    plain = [component.plain for component in components if component.plain is not None]
    if len(plain) == len(components):
        return "/".join(plain)
    # A lone `**` is `*`: names at any depth are compared one by one.
    return "*" if len(components) == 1 and components[0].any_depth else "/".join(c.wild for c in components)
