"""Copies only what changed: brings a copy of what a tree was to what it is, and the last manifest's lines with it.

Every path that the account of changes mentions, under any name, is looked at in the new snapshot and in the day: gone there,
it goes here; otherwise it is copied. Whatever was renamed or made as a directory is copied whole, so that names which the stream
uses on the way to the final ones do not matter. Any doubt is an error, and means a full scan.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from stackward.core import gitignore
from stackward.steps.backup import direct_copy, in_place, moved_files
from stackward.steps.backup.changes import Changes
from stackward.tools import btrfs_names, filesystem


@dataclass(slots=True)
class Applied:
    """What was done in the day: paths that were copied, and those that went with all below them."""

    copied: list[bytes]
    gone: list[bytes]
    digests: dict[bytes, str]  # of files that were read meanwhile: the SHA-256 of each, in hex
    bytes_changed: int = 0
    bytes_grown: int = 0  # what the tree's files are larger by, in all


@dataclass(slots=True)
class _Plan:
    """What is to be done with the paths of a tree. What must go first, already has."""

    content: set[bytes] = field(default_factory=set)
    attributes: set[bytes] = field(default_factory=set)
    in_place: list[bytes] = field(default_factory=list)
    gone: list[bytes] = field(default_factory=list)
    lost: int = 0  # bytes that went with it


def apply(
    changes: Changes,
    source: Path,
    subvolume: Path,
    target: Path,
    rules: tuple[gitignore.Rule, ...],
    *,
    before: Path | None = None,
    linked: bool = False,
) -> Applied:
    """Make `target`, which equals the tree as it was, equal to `source`, the tree in the new snapshot `subvolume`.

    `before` is the snapshot with the tree as it was; where it is given, large files that were renamed are not copied.
    With `linked`, its files are hard links to the last backup's: none is ever written through.

    Raises:
        CommandError, OSError, SendStreamError: the day's part is not whole.
    """
    here, there = os.fsencode(source), os.fsencode(target)
    old_tree = os.fsencode(before / source.relative_to(subvolume)) if before is not None else b""
    digests: dict[bytes, str] = {}
    with moved_files.set_aside(renamed(changes, here, rules), here, there, before, old_tree) as moved:
        plan = _cleared(changes, here, there, rules, linked=linked)
        grown = sum(_size(here, path) - _size(there, path) for path in [*plan.content, *plan.in_place])
        try:
            written = _rewrite(changes, plan, here, there, digests)
            attributes = _with_other_names(plan.attributes | set(plan.in_place), source, subvolume, rules)
            content = _with_other_names(plan.content, source, subvolume, rules)
            parted = {path for path in attributes if linked and _unlinked(there, path)}
            content, attributes = content | parted, attributes - parted
            written += direct_copy.copy(source, target, content - moved.aside.keys(), digests)
            written += direct_copy.copy(source, target, moved.place(here, there, digests), digests)
            attributes |= {os.path.dirname(path) for path in [*content, *plan.gone]}
            attributes |= {path for path in content if _is_directory(here, path)} | moved.aside.keys()
            attributes = {path for path in attributes if status_of(here, path) is not None}
            written += direct_copy.copy_attributes(source, target, attributes)
        except BaseException:
            # A full scan would take them for files that nobody wrote to.
            for path in digests.keys() & set(plan.in_place):
                with suppress(OSError):
                    os.utime(there + b"/" + path)
            raise
    return Applied(sorted(content | attributes), plan.gone, digests, written, grown - plan.lost)


def renamed(changes: Changes, here: bytes, rules: tuple[gitignore.Rule, ...]) -> Iterator[bytes]:
    """All that has, or is in something that has, another name than before, or is new."""
    for path in _topmost(changes):
        found = status_of(here, path)
        if path in changes.whole and found is not None and not _left_out(rules, path, stat.S_ISDIR(found.st_mode)):
            yield from _expanded(here, path, rules)


def _rewrite(changes: Changes, plan: _Plan, here: bytes, there: bytes, digests: dict[bytes, str]) -> int:
    """Write in place what is to be; each file is in `digests` once it is done. Returns how many bytes were written."""
    written = 0
    for path in plan.in_place:
        places = changes.extents.get(path, ())
        digests[path], size = in_place.rewrite(here + b"/" + path, there + b"/" + path, places)
        written += size
    return written


def _cleared(changes: Changes, here: bytes, there: bytes, rules: tuple[gitignore.Rule, ...], *, linked: bool) -> _Plan:
    """Remove what is gone or is replaced from `there`, and tell what else is to be done."""
    plan = _Plan()
    for path in sorted(_topmost(changes)):
        new, old = status_of(here, path), status_of(there, path)
        if new is not None and _left_out(rules, path, stat.S_ISDIR(new.st_mode)):
            new = None  # what has become of it is left out, and what it was must go
        whole = path in changes.whole
        if old is not None and (
            new is None or stat.S_IFMT(new.st_mode) != stat.S_IFMT(old.st_mode) or (whole and path)
        ):
            plan.lost += _remove(there, path)
            plan.gone.append(path)
            old = None
        if new is None:
            continue
        if whole or (old is None and stat.S_ISDIR(new.st_mode)):
            plan.content.update(_expanded(here, path, rules))
        elif old is not None and not linked and _goes_in_place(changes, path, new, old):
            plan.in_place.append(path)
        elif not stat.S_ISDIR(new.st_mode) and (
            path in changes.content or path in changes.extents or old is None or _looks_written(new, old)
        ):
            plan.content.add(path)
        elif not direct_copy.has_attributes_of(_joined(here, path), _joined(there, path)):
            plan.attributes.add(path)
    return plan


def _looks_written(new: os.stat_result, old: os.stat_result) -> bool:
    """Whether a full scan would copy it: what the account says of the content is trusted for less than that."""
    return stat.S_ISREG(new.st_mode) and (new.st_size, new.st_mtime_ns) != (old.st_size, old.st_mtime_ns)


def _goes_in_place(changes: Changes, path: bytes, new: os.stat_result, old: os.stat_result) -> bool:
    """Whether it is a large file that is still the same one, and changed in places or in its time."""
    return (
        path not in changes.content
        and stat.S_ISREG(new.st_mode)
        and new.st_size >= in_place.SMALLEST_BYTES
        and new.st_nlink == old.st_nlink == 1
        and (path in changes.extents or new.st_mtime_ns != old.st_mtime_ns)
    )


def _topmost(changes: Changes) -> Iterator[bytes]:
    """All paths but those within a directory that is looked at whole."""
    for path in changes.paths:
        if not any(parent in changes.whole for parent in _parents(path)):
            yield path


def _parents(path: bytes) -> Iterator[bytes]:
    while path:
        path = os.path.dirname(path)
        yield path


def status_of(root: bytes, path: bytes) -> os.stat_result | None:
    """What is at a path relative to `root`, links not followed; None where nothing is."""
    try:
        return os.lstat(_joined(root, path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _joined(root: bytes, path: bytes) -> bytes:
    return root + b"/" + path if path else root


def _is_directory(root: bytes, path: bytes) -> bool:
    found = status_of(root, path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def _unlinked(root: bytes, path: bytes) -> bool:
    """Take away what is there, unless it is a directory or nothing."""
    found = status_of(root, path)
    if found is None or stat.S_ISDIR(found.st_mode):
        return False
    os.unlink(root + b"/" + path)
    return True


def _size(root: bytes, path: bytes) -> int:
    found = status_of(root, path)
    return found.st_size if found is not None and stat.S_ISREG(found.st_mode) else 0


def _remove(root: bytes, path: bytes) -> int:
    """Remove a path with all below it. Returns how large its files were."""
    size = sum(_size(root, name) for name in _expanded(root, path, ()))
    filesystem.remove_tree(Path(os.fsdecode(root + b"/" + path)))
    return size


def _left_out(rules: tuple[gitignore.Rule, ...], path: bytes, is_directory: bool) -> bool:
    """Whether the path or a directory on the way to it is excluded."""
    if not rules or not path:
        return False
    way = [(parent, True) for parent in _parents(path) if parent]
    return any(gitignore.decide(rules, name, is_directory=kind) for name, kind in [*way, (path, is_directory)])


def _expanded(root: bytes, path: bytes, rules: tuple[gitignore.Rule, ...]) -> Iterator[bytes]:
    """A path and, where it is a directory, all that is in it."""
    todo = [path]
    while todo:
        one = todo.pop()
        yield one
        if not stat.S_ISDIR(os.lstat(_joined(root, one)).st_mode):
            continue
        with os.scandir(_joined(root, one)) as entries:
            for entry in entries:
                name = _joined(one, entry.name) if one else entry.name
                if gitignore.decide(rules, name, is_directory=entry.is_dir(follow_symlinks=False)) is not True:
                    todo.append(name)


def _with_other_names(
    paths: AbstractSet[bytes], source: Path, subvolume: Path, rules: tuple[gitignore.Rule, ...]
) -> set[bytes]:
    """With the other names that their files have within the tree: those are copied together, or they would part."""
    others = btrfs_names.of_shared(subvolume, source, paths)
    return {*paths, *(name for name in others if not _left_out(rules, name, is_directory=False))}
