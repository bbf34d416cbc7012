"""How the value of each kind of label is read, and which of several values is the safer one.

Every parser raises ValueError whose message goes on after the label's name: "must be …".
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from stackward.core.model import Keep, Publish, Quiesce
from stackward.core.patterns import rsync_filters
from stackward.core.units import parse_duration
from stackward.core.values import parse_boolean, parse_list

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_TREES_NARROW_TO_WIDE = ("data", "writable", "all")
_QUIESCE_MILD_TO_STRICT = (Quiesce.NONE, Quiesce.AUTO, Quiesce.PAUSE, Quiesce.STOP)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)
_PORT = r"([1-9]\d{0,4})"
_TREE = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.+~-]*", re.ASCII)
_PUBLISH = re.compile(rf"(?:([0-9.]+|\[[0-9a-fA-F:.]+\]):)?{_PORT}:({_NAME.pattern}):{_PORT}", re.ASCII)


def one_of(*words: str) -> Callable[[str], str]:
    """A parser of exactly these words."""
    listed = " or ".join((", ".join(words[:-1]), words[-1])) if len(words) > 1 else words[0]

    def parse(text: str) -> str:
        word = text.strip().lower()
        if word not in words:
            raise ValueError(f"must be {listed}")
        return word

    return parse


def parse_text(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text.strip()


def parse_quiesce(text: str) -> Quiesce:
    return Quiesce(one_of(*Quiesce)(text))


def parse_time_limit(text: str) -> float:
    seconds = parse_duration(text)
    if seconds <= 0:
        raise ValueError("must be longer than 0")
    return seconds


def parse_patterns(text: str) -> tuple[str, ...]:
    """Gitignore lines as they are (an escaped blank at the end counts), or a short list separated by commas."""
    lines = tuple(line for line in text.split("\n") if line.strip()) if "\n" in text else parse_list(text)
    try:
        rsync_filters(lines)
    except ValueError as error:
        raise ValueError(f"must be gitignore patterns ({error})") from error
    return lines


def parse_names(text: str) -> tuple[str, ...]:
    names = parse_list(text)
    if not names or not all(_NAME.fullmatch(name) for name in names):
        raise ValueError("must be names, separated by commas")
    return names


def parse_trees(text: str) -> tuple[str, ...]:
    """Names of trees and volumes; those of trees have a `+` for each slash, and perhaps a digest after a `~`."""
    names = parse_list(text)
    if not names or not all(_TREE.fullmatch(name) for name in names):
        raise ValueError("must be names as `stackward stacks` has them, separated by commas")
    return names


def parse_targets(text: str) -> tuple[str, ...]:
    """Names of targets; `none` is the empty list."""
    names = parse_names(text)
    if len(names) > 1 and {"all", "none"} & set(names):
        raise ValueError("must be names of targets, or all, or none")
    return () if names == ("none",) else names


def parse_dumps(text: str) -> tuple[tuple[str, str], ...]:
    """(kind, path) of each dump; the path is that of an SQLite database, "" for the others."""
    dumps: list[tuple[str, str]] = []
    for item in parse_list(text):
        kind, separator, path = item.partition(":")
        if (kind in ("postgres", "mariadb") and not separator) or (kind == "sqlite" and path.strip()):
            dumps.append((kind, path.strip()))
        else:
            raise ValueError("must be postgres, mariadb or sqlite:PATH")
    if not dumps:
        raise ValueError("must be postgres, mariadb or sqlite:PATH")
    return tuple(dict.fromkeys(dumps))


def parse_publish(text: str) -> tuple[Publish, ...]:
    matches = [_PUBLISH.fullmatch(item) for item in parse_list(text)]
    found = [Publish(int(match[2]), match[3], int(match[4]), match[1] or "") for match in matches if match]
    if (
        not found
        or len(found) < len(matches)
        or any(max(one.port, one.target) > 65535 or not _is_address(one.address) for one in found)
    ):
        raise ValueError("must be PORT:SERVICE:PORT or ADDRESS:PORT:SERVICE:PORT such as 18080:web:80")
    return tuple(found)


def _is_address(text: str) -> bool:
    try:
        return not text or ipaddress.ip_address(text.strip("[]")) is not None
    except ValueError:
        return False


def parse_environment(text: str) -> tuple[tuple[str, str], ...]:
    """(name, value) of each item."""
    pairs = [item.partition("=") for item in parse_list(text)]
    if not pairs or not all(separator and re.fullmatch(r"[A-Za-z_]\w*", name) for name, separator, _ in pairs):
        raise ValueError("must be NAME=VALUE, one a line or separated by commas")
    return tuple((name, value) for name, _, value in pairs)


def parse_commands(text: str) -> tuple[str, ...]:
    """One command a line."""
    return tuple(line.strip() for line in parse_text(text).split("\n") if line.strip())


def parse_update(text: str) -> str:
    """`true`, `monitor` or `false`."""
    if text.strip().lower() == "monitor":
        return "monitor"
    try:
        return "true" if parse_boolean(text) else "false"
    except ValueError as error:
        raise ValueError("must be true, monitor or false") from error


def widest_trees(values: Sequence[str]) -> str:
    return max(values, key=_TREES_NARROW_TO_WIDE.index)


def strictest_quiesce(values: Sequence[Quiesce]) -> Quiesce:
    return max(values, key=_QUIESCE_MILD_TO_STRICT.index)


def all_dumps(values: Sequence[tuple[tuple[str, str], ...]]) -> tuple[tuple[str, str], ...]:
    return tuple(dict.fromkeys(dump for dumps in values for dump in dumps))


def first(values: Sequence[str]) -> str:
    """Labels come before `x-stackward`, so this is what the service itself says."""
    return values[0]


def longest_keep(values: Sequence[Keep]) -> Keep:
    """A rule that keeps whatever any of them keeps."""
    days = [keep.days for keep in values if keep.days is not None]
    return Keep(
        days=max(days) if days else None,
        hourly=max(keep.hourly for keep in values),
        daily=max(keep.daily for keep in values),
        weekly=max(keep.weekly for keep in values),
        monthly=max(keep.monthly for keep in values),
        yearly=max(keep.yearly for keep in values),
    )


def common_items(values: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """What all of them leave out."""
    return tuple(item for item in values[0] if all(item in other for other in values))


def common_patterns(values: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """What all of them leave out; nothing where a negation makes that hard to tell."""
    negated = any(pattern.startswith("!") for patterns in values for pattern in patterns)
    return () if negated else common_items(values)
