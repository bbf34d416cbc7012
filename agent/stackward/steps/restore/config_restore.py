"""What restoring configuration would change, file by file, and the moves that do it.

Nothing is ever deleted: a file that differs is moved aside, one that the backup doesn't have is left alone. Existing
directories stay as they are. Containers may write to stacks' directories, so all is looked at and moved by descriptors, and no
link is followed.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import IO

from stackward.steps.restore import kept
from stackward.steps.restore.home import KEPT
from stackward.steps.restore.kept import Entry
from stackward.steps.restore.restore_tree import Move
from stackward.steps.undo import Step
from stackward.tools import archive, beneath, filesystem, unpack
from stackward.tools.archive import Member
from stackward.tools.beneath import LinkOnTheWayError

OUTSIDE = b".outside/"  # the capsule's directory for secrets from outside DOCKER_ROOT
_CHUNK = 1 << 20
_KINDS = {
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.DIRTYPE: stat.S_IFDIR,
}


class State(StrEnum):
    NEW = "new"
    CHANGED = "changed"
    SAME = "same"
    LEFT = "left as it is"  # for the reason given
    DIFFERENT = "directory with another owner or mode, left as it is"


@dataclass(frozen=True, slots=True)
class Item:
    """One member of an archive and what would become of it. `path` is relative to the archive's root, without `./`."""

    member: Member
    path: bytes
    place: bytes
    state: State
    why: str = ""

    @property
    def is_wanted(self) -> bool:
        return self.state in (State.NEW, State.CHANGED)


@dataclass(frozen=True, slots=True)
class Unit:
    """What is moved as one: a file, or the topmost of the directories that are not there yet.

    `home` is the directory on its own file system where it is unpacked, and where what it replaces is kept.
    """

    path: bytes
    place: Path
    home: Path
    replaces: bool

    @property
    def staged(self) -> Path:
        return self.home / "new" / os.fsdecode(self.path)

    @property
    def old(self) -> Path:
        return self.home / "old" / os.fsdecode(self.path)


def compare(
    source: IO[bytes],
    root: Path,
    stacks: Collection[bytes],
    outside: Callable[[Path], str] | None,
    *,
    elsewhere: bool = False,
) -> Iterator[Item]:
    """Each member that belongs to `stacks` (none named: all), compared with what stands in its place.

    With `outside`, files from outside DOCKER_ROOT belong where they were, unless it says why not; without, nowhere. Where
    `root` is `elsewhere`, they lie below it like all others.

    Raises:
        DamageError: the archive is damaged.
    """
    base = os.fsencode(root)
    for member, content in archive.contents(source):
        path = archive.plain_name(member.name)
        if not path or (stacks and path.split(b"/")[0] not in stacks):
            continue
        if not unpack.is_inside(path):
            yield Item(member, path, path, State.LEFT, "its name leads out of the archive")
        elif not elsewhere and (path + b"/" == OUTSIDE or path.startswith(OUTSIDE)):
            if (item := _outside(member, content, path, outside)) is not None:
                yield item
        else:
            place = base + b"/" + path
            state, why = _compare(member, content, place, base)
            yield Item(member, path, place, state, why)


def _outside(
    member: Member, content: IO[bytes] | None, path: bytes, refusal: Callable[[Path], str] | None
) -> Item | None:
    """A file from outside DOCKER_ROOT. The directories above are only named in the archive, and never made."""
    if member.is_directory:
        return None
    place = path.removeprefix(OUTSIDE[:-1])
    if refusal is None:
        return Item(member, path, place, State.LEFT, "only a secrets capsule holds files from outside DOCKER_ROOT")
    if why := refusal(Path(os.fsdecode(place))):
        return Item(member, path, place, State.LEFT, why)
    if not member.is_regular:
        return Item(member, path, place, State.LEFT, "outside DOCKER_ROOT only files are restored")
    if not os.path.isdir(os.path.dirname(place)):
        why = "its directory is not there, or not mounted into the appliance"
        return Item(member, path, place, State.LEFT, why)
    state, why = _compare(member, content, place, b"/")
    return Item(member, path, place, state, why)


def had_before(root: Path, path: bytes, member: Member) -> bool:
    """Whether the stack has such a device node, or a file with such rights and owner, in its place now."""
    try:
        found = beneath.status(root / os.fsdecode(path))
    except LinkOnTheWayError:
        return False
    if found is None:
        return False
    if not member.is_regular:
        device = (os.major(found.st_rdev), os.minor(found.st_rdev))
        return stat.S_IFMT(found.st_mode) == _KINDS.get(member.kind) and device == member.device
    rights = member.mode & (stat.S_ISUID | stat.S_ISGID)
    return (
        bool(rights) and found.st_mode & rights == rights and (found.st_uid, found.st_gid) == (member.uid, member.gid)
    )


def with_links(items: Sequence[Item]) -> list[Item]:
    """Names of one file are restored together: a hard link needs the file that it is a link to."""
    first = {item.path: item.path for item in items if item.member.is_regular}
    for item in items:
        if item.member.kind == tarfile.LNKTYPE:
            first[item.path] = archive.plain_name(item.member.link)
    touched = {first[item.path] for item in items if item.member.kind == tarfile.LNKTYPE and item.is_wanted}
    return [
        replace(item, state=State.CHANGED)
        if item.state is State.SAME and first.get(item.path) in touched and not item.member.is_directory
        else item
        for item in items
    ]


def units(items: Sequence[Item], root: Path, run_id: str) -> list[Unit]:
    """What has to be moved for the items that are wanted, in the order of their paths."""
    found: dict[bytes, Unit] = {}
    mount_points = frozenset(mount.point for mount in filesystem.mounts())
    for item in items:
        if not item.is_wanted:
            continue
        path, place = item.path, item.place
        while item.state is State.NEW and not os.path.lexists(os.path.dirname(place)):
            path, place = os.path.dirname(path), os.path.dirname(place)
        if path not in found:
            where = Path(os.fsdecode(place))
            is_below = root in where.parents
            home = (_home(where, root, mount_points) if is_below else where.parent) / KEPT / run_id
            found[path] = Unit(path, where, home, item.state is State.CHANGED)
    return list(found.values())


def entries(found: Sequence[Unit]) -> tuple[Entry, ...]:
    """What the record of kept things says; made before anything is moved."""
    return tuple(
        kept.entry_for(unit.place, unit.old) if unit.replaces else Entry(str(unit.place), str(unit.old))
        for unit in found
    )


def moves_aside(found: Sequence[Unit]) -> list[Move]:
    return [Move(unit.place, unit.old) for unit in found if unit.replaces]


def moves_in(found: Sequence[Unit]) -> list[Move]:
    return [Move(unit.staged, unit.place) for unit in found]


def unpacked(found: Sequence[Unit]) -> list[Unit]:
    """Those of which something was unpacked: of a member that was left out there is nothing to move."""
    return [unit for unit in found if beneath.status(unit.staged) is not None]


def ways_back(found: Sequence[Unit]) -> list[Step]:
    """Each is right whether or not its move was made: the old thing is aside only then, the new one in place only then."""
    return [
        Step("rename", str(unit.old), str(unit.place), identity=beneath.identity(unit.place))
        if unit.replaces
        else Step("rename", str(unit.place), str(unit.staged), identity=beneath.identity(unit.staged))
        for unit in reversed(found)
    ]


def above(path: bytes) -> Iterator[bytes]:
    """A path and each directory above it."""
    while path not in (b"", b"/"):
        yield path
        path = os.path.dirname(path)


def _home(place: Path, root: Path, mount_points: frozenset[Path]) -> Path:
    """The highest directory, no higher than `root`, from which a rename to `place` can be made."""
    home = place.parent
    device = os.lstat(home).st_dev
    while home != root and home not in mount_points and os.lstat(home.parent).st_dev == device:
        home = home.parent
    return home


def _compare(member: Member, content: IO[bytes] | None, place: bytes, base: bytes) -> tuple[State, str]:
    try:
        found = beneath.status(place)
    except LinkOnTheWayError:
        return State.LEFT, "a symlink stands where its directory was"
    if found is None:
        return (State.LEFT, "a file stands where its directory was") if _is_blocked(place) else (State.NEW, "")
    if stat.S_ISDIR(found.st_mode):
        if not member.is_directory:
            return State.LEFT, "a directory stands in its place"
        return (State.SAME if _same_attributes(member, found) else State.DIFFERENT), ""
    if member.is_directory:
        leads_on = stat.S_ISLNK(found.st_mode) and os.path.isdir(place)
        return (State.SAME, "") if leads_on else (State.LEFT, "a file stands in its place")
    return (State.SAME if _same_kind(member, content, found, place, base) else State.CHANGED), ""


def _is_blocked(place: bytes) -> bool:
    """Whether something that is no directory stands above it."""
    for directory in above(os.path.dirname(place)):
        found = beneath.status(directory)
        if found is not None:
            return not stat.S_ISDIR(found.st_mode)
    return False


def _same_kind(member: Member, content: IO[bytes] | None, found: os.stat_result, place: bytes, base: bytes) -> bool:
    if member.kind == tarfile.LNKTYPE:
        other = beneath.status(os.path.join(base, archive.plain_name(member.link)))
        return other is not None and os.path.samestat(found, other)
    if member.is_regular:
        like = stat.S_ISREG(found.st_mode) and found.st_size == member.size and _same_attributes(member, found)
        return like and _same_content(content, place)
    if stat.S_IFMT(found.st_mode) != _KINDS.get(member.kind):
        return False
    if member.kind == tarfile.SYMTYPE:
        with beneath.parent(place) as (directory, name):
            target = os.readlink(name, dir_fd=directory)
        return target == member.link and (found.st_uid, found.st_gid) == (member.uid, member.gid)
    device = (os.major(found.st_rdev), os.minor(found.st_rdev))
    return _same_attributes(member, found) and (member.kind == tarfile.FIFOTYPE or device == member.device)


def _same_attributes(member: Member, found: os.stat_result) -> bool:
    return (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (member.mode, member.uid, member.gid)


def _same_content(content: IO[bytes] | None, place: bytes) -> bool:
    with beneath.opened(place) as descriptor, open(descriptor, "rb", closefd=False) as file:
        while content is not None and (chunk := content.read(_CHUNK)):
            if file.read(len(chunk)) != chunk:
                return False
    return True
