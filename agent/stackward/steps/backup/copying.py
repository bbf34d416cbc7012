"""Copies one tree into a day's backup and says what its manifest lines are.

A file whose inode in the new day is the one it has in the last backup has not been written since (rsync replaces a changed file
by a new one), so its line is carried over; everything else is read back and hashed. This is the full scan; where two
snapshots tell what changed between them, `apply_changes` does the same from that.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

from stackward.core import artifacts
from stackward.steps import backup_paths
from stackward.steps.backup.day import Day
from stackward.tools import filesystem, manifest, rsync, tree_root
from stackward.tools.tree_root import TreeRoot

_BATCH = 10_000
_QUICKLY = 10_000


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file of the new day; `known` says that the last backup has the very same inode there."""

    path: bytes
    known: bool


def first_pass(
    day: Day,
    source: TreeRoot,
    relative: str,
    base: Path | None,
    filters: Sequence[str],
    on_progress: Callable[[int, int], None] | None = None,
    known: tuple[int, int] = (0, 0),
    *,
    compare: bool = False,
) -> rsync.Transfer:
    """Copy `source` to the part `relative` of the day, sharing with the same part of `base` what has not changed.

    `known`: the files and bytes of the last backup, 0 where there is none. With `compare`, the content tells what has not
    changed, not size and time.
    """
    target = day.place(relative)
    shared = base / relative if base is not None and backup_paths.has_plain(base, relative) else None
    if not day.began_from(base):  # what it began from may be older, and hide what changed behind an unchanged time
        if day.subvolume and base is not None:
            day.fill(relative, base)
        else:
            day.discard(relative)
    target.mkdir(parents=True, exist_ok=True)
    link_to = None if day.subvolume else shared

    def copied(link_to: Path | None) -> rsync.Transfer:
        extra = ("--checksum",) if compare else ()
        return rsync.copy(
            source, target, link_to=link_to, filters=filters, extra=extra, on_progress=on_progress, known=known
        )

    try:
        return copied(link_to)
    except rsync.TooManyLinksError:
        if link_to is None:
            raise
    day.discard(relative)
    target.mkdir(parents=True)
    return copied(None)


def section(day: Day, relative: str, base: Path | None) -> tuple[manifest.Section, int, int]:
    """The manifest lines of a part, from a full walk. Returns them, how many they are, and how many are new."""
    if day.subvolume and not day.began_from(base):
        base = None  # inode numbers mean the same in both only where one began as a snapshot of the other
    shared = base / relative if base is not None and backup_paths.has_plain(base, relative) else None
    files = walk(day.place(relative), shared, os.fsencode(relative))
    known = _with_digests(files, _lines_of(base, relative))
    spool: IO[bytes] = tempfile.TemporaryFile(dir=day.root)  # noqa: SIM115 - whoever writes the manifest closes it
    count = new = 0
    while batch := list(islice(known, _BATCH)):
        hashed = manifest.hash_files(os.fsencode(day.path), (file.path for file, digest in batch if not digest))
        for file, digest in batch:
            count += 1
            new += not digest
            spool.write(manifest.format_line(digest or next(hashed)[0], file.path))
    return manifest.Section(os.fsencode(relative) + b"/", (spool,)), count, new


def are_readable(base: Path, relative: str) -> bool:
    """Whether a backup's manifest has nothing but lines of the part, in their order, where these stand."""
    try:
        manifest.Sorted(base / artifacts.MANIFEST).require_whole(os.fsencode(relative))
    except (OSError, ValueError):
        return False
    return True


def _lines_of(base: Path | None, relative: str) -> Iterator[manifest.Line]:
    """The last backup's lines of a part. None where its manifest cannot be read: then everything is hashed again."""
    if base is None:
        return
    try:
        lines = manifest.Sorted(base / artifacts.MANIFEST)
        yield from lines.lines(lines.below(os.fsencode(relative)))
    except (OSError, ValueError):
        return


def _with_digests(found: Iterator[Found], lines: Iterator[manifest.Line]) -> Iterator[tuple[Found, str]]:
    """Each file with the digest that the last backup's lines (sorted, too) have for its inode, or ""."""
    line = next(lines, None)
    for file in found:
        while line is not None and line[1] < file.path:
            line = next(lines, None)
        yield file, line[0] if file.known and line is not None and line[1] == file.path else ""


def walk(directory: Path, shared: Path | None, prefix: bytes) -> Iterator[Found]:
    """Every regular file below `directory` in the order of the paths' bytes, its path under `prefix`.

    Inodes come from the directories, without a stat.
    """
    start = os.fsencode(shared) if shared is not None else None
    levels = [(iter(filesystem.sorted_entries(os.fsencode(directory))), _inodes(start), start, prefix)]
    while levels:
        entries, before, there, path = levels[-1]
        entry = next(entries, None)
        if entry is None:
            levels.pop()
        elif entry.is_dir(follow_symlinks=False):
            below = there + b"/" + entry.name if there is not None and entry.name in before else None
            inside = iter(filesystem.sorted_entries(entry.path))
            levels.append((inside, _inodes(below), below, path + b"/" + entry.name))
        elif entry.is_file(follow_symlinks=False):
            yield Found(path + b"/" + entry.name, before.get(entry.name) == entry.inode())


def looks_lost(tree: Path, files_before: int, shrink_limit: float) -> str:
    """Why a tree looks as if its data were gone, or "": found out quickly, so that in a large one only `is_lost` is sure."""
    enough = min(_least(files_before, shrink_limit), _QUICKLY)
    found = tree_root.count_files(tree, enough=enough)
    return is_lost(found, files_before, shrink_limit) if found < enough else ""


def is_lost(files: int, files_before: int, shrink_limit: float) -> str:
    """Why so many files mean that data is gone, or "". `shrink_limit` is the share of them that may go."""
    if files >= _least(files_before, shrink_limit):
        return ""
    return f"it held {files_before} files and {f'holds {files}' if files else 'is empty'} now"


def _least(files_before: int, shrink_limit: float) -> int:
    return max(1, round(files_before * (1.0 - shrink_limit))) if files_before else 0


def _inodes(directory: bytes | None) -> dict[bytes, int]:
    if directory is None:
        return {}
    try:
        with os.scandir(directory) as entries:
            return {entry.name: entry.inode() for entry in entries if not entry.is_symlink()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
