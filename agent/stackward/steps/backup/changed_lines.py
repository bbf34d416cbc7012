"""The manifest lines of a tree that was brought up to date by an account of changes: the last backup's, but for those."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from stackward.steps.backup.apply_changes import Applied, status_of
from stackward.steps.backup.day import Day
from stackward.tools import manifest


def section(
    day: Day, part: str, base: Path, lines: manifest.Sorted, files_before: int, applied: Applied
) -> tuple[manifest.Section, int, int]:
    """The part's lines: the last backup's (`files_before`), but for what was applied.

    Returns them, how many they are, and how many are new.
    """
    prefix = os.fsencode(part)
    edits: list[_Edit] = []
    for path in applied.gone:
        name = prefix + b"/" + path
        edits += [_Edit(name, name + b"\0"), _Edit(name + b"/", name + b"0")]
    for path in applied.copied:
        name = prefix + b"/" + path
        if path in applied.digests or (path and _is_new(day, base, lines, name)):
            digest = applied.digests.get(path) or manifest.hash_file(os.fsencode(day.path) + b"/" + name)
            edits.append(_Edit(name, name + b"\0", manifest.format_line(digest, name)))
    pieces, more = _edited(lines, lines.below(prefix), edits)
    return manifest.Section(prefix + b"/", pieces), files_before + more, sum(bool(edit.line) for edit in edits)


@dataclass(frozen=True, slots=True, order=True)
class _Edit:
    """The lines from the path `start` up to (without) `end` go; `line` comes in their place."""

    start: bytes
    end: bytes
    line: bytes = b""


def _is_new(day: Day, base: Path, lines: manifest.Sorted, name: bytes) -> bool:
    """Whether the day has a regular file there that is not the last backup's, of which its manifest speaks."""
    found = status_of(os.fsencode(day.path), name)
    if found is None or not stat.S_ISREG(found.st_mode):
        return False
    before = status_of(os.fsencode(base), name)
    line = lines.line(lines.find(name))
    return before is None or before.st_ino != found.st_ino or line is None or line[1] != name


def _edited(lines: manifest.Sorted, old: manifest.Extent, edits: list[_Edit]) -> tuple[tuple[manifest.Piece, ...], int]:
    """The old lines with the edits made, and by how many lines that is more (or, negative, fewer)."""
    pieces: list[manifest.Piece] = []
    more, at = 0, old.start
    for edit in sorted(edits):
        first, after = lines.find(edit.start), lines.find(edit.end)
        if first > at:
            pieces.append(manifest.Extent(lines.path, at, first))
        if after > max(at, first):
            more -= lines.count(manifest.Extent(lines.path, max(at, first), after))
        at = max(at, after)
        if edit.line:
            pieces.append(edit.line)
            more += 1
    if old.end > at:
        pieces.append(manifest.Extent(lines.path, at, old.end))
    return tuple(pieces), more
