"""Puts a file or directory of a tree back while the stack runs: what is missing, or with `overwrite` what differs too.

Nothing else is touched: not the directories that are there already, and no file that the backup does not have. What is
overwritten is moved aside first and kept.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from stackward.core.errors import RefusedError
from stackward.core.model import display
from stackward.steps.restore import kept
from stackward.steps.restore.kept import KEPT, Entry
from stackward.steps.restore.restore_plan import Inside, first_link
from stackward.steps.restore.restore_tree import Move, carry_out, ways_back
from stackward.steps.undo import Undo
from stackward.tools import filesystem, rsync


@dataclass(frozen=True, slots=True)
class Plan:
    """Paths relative to the tree's root `place`, parents first; a replaced path is among those written, too."""

    inside: Inside
    place: Path
    write: tuple[bytes, ...]
    replace: tuple[bytes, ...]
    left_alone: int  # that differ, without `overwrite`

    @property
    def new(self) -> tuple[bytes, ...]:
        replaced = set(self.replace)
        return tuple(path for path in self.write if path not in replaced)


def plan(inside: Inside, place: Path, *, overwrite: bool) -> Plan:
    """Compare the path in the backup with what is there now.

    Raises:
        RefusedError: a directory on the way is a symbolic link, and could lead out of the tree.
    """
    if (link := first_link(place, inside.path)) is not None:
        raise RefusedError(
            f"{display(link)} is a symbolic link: writing below it could hit something else",
            hint="restore it elsewhere with --to DIR",
        )
    listed = [os.fsencode(p) for p in reversed(inside.path.parents) if p.parts]
    items = {*listed, *_differing(inside, place, content=overwrite)}
    write, replaced, alone = [], [], 0
    blocked: bytes | None = None
    for path in sorted(items, key=lambda path: path.split(b"/")):
        if blocked is not None and path.startswith(blocked + b"/"):
            continue
        blocked = None
        here = os.path.join(os.fsencode(place), path)
        if not os.path.lexists(here):
            write.append(path)
        elif _is_directory(here) and _is_directory(os.path.join(os.fsencode(inside.source), path)):
            continue
        elif overwrite:
            write.append(path)
            replaced.append(path)
        else:
            alone += 1
            blocked = path
    return Plan(inside, place, tuple(write), tuple(replaced), alone)


def home_of(place: Path, run_id: str) -> Path:
    """Where what is replaced in the tree is kept: beside it, or in it where it is a mount point."""
    if os.path.ismount(place):
        return place / KEPT / run_id
    return kept.directory_beside(place, run_id)


def entries(chosen: Plan, home: Path) -> list[Entry]:
    """What the record says of it: what is replaced, and the topmost of what is new."""
    found = [kept.entry_for(_at(chosen.place, path), _at(home, path)) for path in chosen.replace]
    top: bytes | None = None
    for path in chosen.new:
        if top is None or not path.startswith(top + b"/"):
            top = path
            found.append(Entry(str(_at(chosen.place, path)), str(_at(home, path))))
    return found


def carry_through(chosen: Plan, home: Path, undo: Undo, finished: Callable[[], None]) -> rsync.Transfer:
    """Write what is planned, and call `finished` when all is there. If that fails, what was replaced is put back.

    Raises:
        DiskFullError, CommandError, OSError: not everything could be written.
    """
    moves = [Move(_at(chosen.place, path), _at(home, path)) for path in chosen.replace]
    chosen.place.mkdir(parents=True, exist_ok=True)
    with undo.promised(f"overwriting in {display(chosen.place)}", ways_back(moves), only_on_error=True):
        carry_out(moves)
        with _listed(chosen.write) as extra:
            transfer = rsync.copy(chosen.inside.source, chosen.place, delete=False, extra=extra)
        filesystem.sync_filesystem(chosen.place)
        finished()
    return transfer


def copy_out(inside: Inside, destination: Path) -> rsync.Transfer:
    """Copy a path of a backup to `destination/<its last name>`, with everything that it has."""
    if not inside.path.parts:
        return rsync.copy(inside.source, destination / inside.entry.mount_name, delete=False)
    parent, name = inside.path.parent, os.fsencode(inside.path.name)
    with _listed([name], "--recursive") as extra:
        return rsync.copy(inside.source / parent, destination, delete=False, extra=extra)


def _differing(inside: Inside, place: Path, *, content: bool) -> list[bytes]:
    """Paths that are not there, or not the same: by size and time, or by `content` too."""
    wanted = os.fsencode(inside.path) if inside.path.parts else b"."
    # --force: in a dry run it only says that a directory may stand where the backup has a file.
    with _listed([wanted], "--recursive", "--force", *(["--checksum"] if content else [])) as extra:
        items = rsync.differences(inside.source, place, delete=False, extra=extra)
    return [item.path for item in items if item.path not in (b"", b".") and not item.flags.startswith("*")]


@contextmanager
def _listed(paths: Sequence[bytes], *more: str) -> Iterator[tuple[str, ...]]:
    """Options that make rsync look at `paths` only, and at no directory on the way to them."""
    with tempfile.NamedTemporaryFile(prefix="stackward-") as names:
        names.write(b"".join(b"./" + path + b"\0" for path in paths))
        names.flush()
        yield (f"--files-from={names.name}", "--from0", "--no-implied-dirs", *more)


def _is_directory(path: bytes) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _at(root: Path, path: bytes) -> Path:
    return root / PurePosixPath(os.fsdecode(path))
