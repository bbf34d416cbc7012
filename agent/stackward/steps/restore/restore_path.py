"""Puts a file or directory of a tree back while the stack runs: what is missing, or with `overwrite` what differs too.

Nothing else is touched: not the directories that are there already, and no file that the backup does not have. All of it is
made outside of the tree first; then each thing takes its name, and what had it is kept. No program writes into the tree: a
container that swaps a directory for a link meanwhile has the restore refused.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from stackward.core.errors import RefusedError
from stackward.core.model import display
from stackward.steps import verified_copy
from stackward.steps.restore import home, placing
from stackward.steps.restore.kept import Entry
from stackward.steps.restore.restore_plan import Inside, first_link
from stackward.steps.undo import Step, Undo
from stackward.steps.verified_copy import Checksums, Copier
from stackward.tools import beneath, btrfs, filesystem, rsync


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


@dataclass(frozen=True, slots=True)
class Unit:
    """What takes its name as one: a file, or the topmost of the directories that are not there yet.

    `made` is where it is made; with a rename, what it `replaces` lies there afterwards, else a copy of that in `old`.
    """

    path: bytes
    place: Path
    made: Path
    replaces: bool
    copied: bool

    @property
    def old(self) -> Path:
        return self.made.with_name(self.made.name + ".old")

    @property
    def kept(self) -> Path:
        return self.old if self.copied else self.made

    def entry(self) -> Entry:
        """What the record of kept things says of it, once all is made; nothing was moved yet."""
        if not self.replaces:
            return Entry(str(self.place), str(self.kept), copied=self.copied)
        identity = beneath.identity(self.old if self.copied else self.place)
        return Entry(str(self.place), str(self.kept), identity, copied=self.copied)


def units(chosen: Plan, where: Path) -> list[Unit]:
    """What has to take its name for the plan, to be made in the directory `where`."""
    replaced = frozenset(chosen.replace)
    found: list[Unit] = []
    for path in chosen.write:
        if not found or not path.startswith(found[-1].path + b"/"):
            place = _at(chosen.place, path)
            copied = not home.can_rename(place, where)
            found.append(Unit(path, place, where / str(len(found) + 1), path in replaced, copied))
    return found


def make(
    chosen: Plan, todo: Sequence[Unit], copier: Copier, checksums: Callable[[bytes], Checksums | None]
) -> list[Unit]:
    """Make each unit outside of the tree, and a copy of what it replaces where no rename reaches that.

    Returns those that were made: of a file that is damaged there is none.

    Raises:
        LinkOnTheWayError, DiskFullError, OSError: not everything could be made.
    """
    made = []
    for unit in todo:
        beneath.make_directories(unit.made.parent)
        _make(chosen.inside, unit, copier, checksums)
        if beneath.status(unit.made) is None:
            continue
        replaces = unit.replaces and beneath.status(unit.place) is not None
        if replaces and unit.copied:
            verified_copy.copy(unit.place, unit.old)
        made.append(replace(unit, replaces=replaces))
    if made:
        filesystem.sync_filesystem(made[0].made)
    return made


def _make(inside: Inside, unit: Unit, copier: Copier, checksums: Callable[[bytes], Checksums | None]) -> None:
    """Copy it; of a directory on the way to what was asked for, that alone."""
    source, wanted = _at(inside.source, unit.path), os.fsencode(inside.path)
    if wanted.startswith(unit.path + b"/"):
        inner = wanted.removeprefix(unit.path + b"/").split(b"/")
        copier.copy_chain(source, unit.made, inner, checksums(wanted), called=wanted)
    else:
        copier.copy(source, unit.made, checksums(unit.path), called=unit.path)


def put_in(
    todo: Sequence[Unit], undo: Undo, reason: str, finished: Callable[[], None], reached: Callable[[], None]
) -> None:
    """Have each unit take its name, and call `finished` when all have. If that fails, all is as it was.

    `reached` is called after each of them.

    Raises:
        LinkOnTheWayError, DiskFullError, OSError: it failed.
    """
    with ExitStack() as held:
        copier = Copier(whole=True)
        beside = {
            unit: held.enter_context(placing.beside(unit.made, unit.place, copier)) for unit in todo if unit.copied
        }
        steps = [step for unit in reversed(todo) for step in _ways_back(unit, beside.get(unit))]
        with undo.promised(reason, steps, only_on_error=True):
            for unit in todo:
                _put_in(unit, beside.get(unit))
                reached()
            finished()
    for unit in beside:
        btrfs.delete_directory(unit.made)


def _put_in(unit: Unit, beside: Path | None) -> None:
    new = beside or unit.made
    if not unit.replaces:
        filesystem.rename_new(new, unit.place)
    elif beside is not None:
        placing.settle(beside, unit.place)
    else:
        placing.swap(unit.made, unit.place)
    filesystem.sync_parents(unit.place, new)


def _ways_back(unit: Unit, beside: Path | None) -> list[Step]:
    """Each is right whether or not the unit has its name already."""
    if beside is not None:
        new = beneath.identity(beside)
        back = Step("copy-back", str(unit.old), str(unit.place), identity=beneath.identity(unit.place))
        put = [back] if unit.replaces else [Step("delete", str(unit.place), identity=new)]
        return [*put, Step("delete", str(beside), identity=new)]
    if unit.replaces:
        return [Step("rename", str(unit.made), str(unit.place), identity=beneath.identity(unit.place))]
    return [Step("rename", str(unit.place), str(unit.made), identity=beneath.identity(unit.made))]


def copy_out(inside: Inside, destination: Path, copier: Copier, checksums: Checksums | None) -> None:
    """Copy a path of a backup to `destination/<its last name>`, with everything that it has; what is there is merged.

    Raises:
        LinkOnTheWayError, DiskFullError, OSError: it is not all copied.
    """
    name = inside.path.name if inside.path.parts else inside.entry.mount_name
    copier.copy(inside.source / inside.path, destination / name, checksums, called=os.fsencode(inside.path))


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
