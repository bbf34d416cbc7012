"""What is different between two snapshots, from Btrfs's own account: the work follows the change, not the size."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stackward.steps.volume import renaming
from stackward.tools import btrfs, btrfs_names, filesystem, sendstream


@dataclass(frozen=True, slots=True)
class Diff:
    """Paths relative to the volume, sorted; b"" is the volume's own directory.

    A directory that was renamed stands there once, without what is in it. What was replaced under its name is `changed`. Of
    a directory, that names in it came or went is no change, nor is its time.
    """

    created: tuple[bytes, ...] = ()
    changed: tuple[bytes, ...] = ()
    renamed: tuple[tuple[bytes, bytes], ...] = ()
    removed: tuple[bytes, ...] = ()

    @property
    def count(self) -> int:
        return len(self.created) + len(self.changed) + len(self.renamed) + len(self.removed)


def between(old: Path, new: Path) -> Diff:
    """Compare two read-only snapshots with the subvolumes nested in them.

    Raises:
        CommandError, SendStreamError: it cannot be told.
    """
    parts = [_of_one(old, new, b"")]
    before, after = _nested(old), _nested(new)
    parts += [_of_one(old / path, new / path, os.fsencode(path)) for path in sorted(before & after)]
    removed = [name for path in before - after for name in _everything(old, path)]
    created = [name for path in after - before for name in _everything(new, path)]
    return Diff(
        created=tuple(sorted([*created, *(one for part in parts for one in part.created)])),
        changed=tuple(sorted(one for part in parts for one in part.changed)),
        renamed=tuple(sorted(one for part in parts for one in part.renamed)),
        removed=tuple(sorted([*removed, *(one for part in parts for one in part.removed)])),
    )


def _of_one(old: Path, new: Path, prefix: bytes) -> Diff:
    told = renaming.names(sendstream.changes_between(old, new))
    origin = {after: before for before, after in told.renamed}
    changed = set(told.changed)
    changed |= {path for path in told.perhaps if _differs(old, _before(path, origin), new, path)}
    changed |= btrfs_names.of_shared(new, new, changed) - told.created
    replaced = told.created & told.removed

    def placed(path: bytes) -> bytes:
        return prefix + b"/" + path if prefix and path else prefix or path

    return Diff(
        created=tuple(map(placed, told.created - replaced)),
        changed=tuple(map(placed, changed | replaced)),
        renamed=tuple((placed(before), placed(after)) for before, after in told.renamed),
        removed=tuple(map(placed, told.removed - replaced)),
    )


def _before(path: bytes, origin: dict[bytes, bytes]) -> bytes:
    """The old name of what is at `path`, which is not new; it or a directory on the way to it may have been renamed."""
    rest: list[bytes] = []
    while path:
        if path in origin:
            return b"/".join([origin[path], *reversed(rest)])
        path, name = os.path.split(path)
        rest.append(name)
    return b"/".join(reversed(rest))


def _differs(old: Path, before: bytes, new: Path, after: bytes) -> bool:
    """Whether a file's size or time changed. A directory's time says no more than the names in it do."""
    try:
        was, is_now = os.lstat(os.fsencode(old) + b"/" + before), os.lstat(os.fsencode(new) + b"/" + after)
    except OSError:
        return True  # in doubt, tell it
    if stat.S_ISDIR(is_now.st_mode):
        return False
    return (was.st_size, was.st_mtime_ns) != (is_now.st_size, is_now.st_mtime_ns)


def _nested(snapshot: Path) -> set[Path]:
    return {one.path for one in btrfs.nested_subvolumes(snapshot) if filesystem.is_subvolume(snapshot / one.path)}


def _everything(snapshot: Path, nested: Path) -> Iterator[bytes]:
    """A nested subvolume and all that is in it, but for those nested in turn: they are told by themselves."""
    yield os.fsencode(nested)
    root = os.fsencode(snapshot)
    for here, directories, files in os.walk(os.path.join(root, os.fsencode(nested))):
        directories[:] = [
            d for d in directories if not filesystem.is_subvolume(Path(os.fsdecode(os.path.join(here, d))))
        ]
        for name in directories + files:
            yield os.path.join(here, name)[len(root) + 1 :]
