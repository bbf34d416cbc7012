"""What Btrfs does and knows, by the `btrfs` command or from the kernel. Paths are directories that this process sees.

Errors are CommandError, also those of the ioctls that are used where starting the command would take too long.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from stackward.core.model import display
from stackward.tools import beneath, filesystem, process

_LISTED = re.compile(rb"ID (\d+) gen \d+ (?:cgen \d+ )?parent (\d+) top level \d+ path (.*)", re.DOTALL)

_STUB_INODE = 2  # BTRFS_EMPTY_SUBVOL_DIR_OBJECTID

# linux/btrfs.h: struct btrfs_ioctl_ino_lookup_args: tree, object, name
_IOC_INO_LOOKUP = 0xD0009412
_INO_LOOKUP = struct.Struct("=QQ4080x")

_IOC_SUBVOL_GETFLAGS = 0x80089419
_IOC_SUBVOL_SETFLAGS = 0x4008941A
_FLAGS = struct.Struct("=Q")
_SUBVOL_RDONLY = 1 << 1

_IOC_SYNC = 0x9408
_IOC_SNAP_DESTROY = 0x5000940F
_VOL_ARGS = struct.Struct("=q4088s")  # struct btrfs_ioctl_vol_args: fd (unused here), name
_IOC_SNAP_CREATE_V2 = 0x50009417
_VOL_ARGS_V2 = struct.Struct("=qQQ32x4040s")  # struct btrfs_ioctl_vol_args_v2: source, transaction, flags, name


class UntoldError(process.CommandError):
    """The kernel did not do or tell what it was asked about a subvolume; it is no longer there, perhaps."""

    def __init__(self, question: str, subvolume: Path, error: OSError) -> None:
        super().__init__(
            ["btrfs", question, subvolume], error.errno or 1, error.strerror or str(error), why="no answer"
        )


@dataclass(frozen=True, slots=True)
class Nested:
    """A subvolume below another one; `path` is relative to that one."""

    identifier: int
    path: Path
    read_only: bool = False


def create_subvolume(path: Path) -> None:
    process.run(["btrfs", "subvolume", "create", path])


def sync(path: Path) -> None:
    """Commit everything written to the file system, so that a snapshot has nothing left to flush."""
    process.run(["btrfs", "filesystem", "sync", path])


def snapshot(source: Path, target: Path, *, read_only: bool) -> None:
    """A snapshot of the subvolume that is at `source`; one that a symbolic link leads to is not taken for it.

    Raises:
        LinkOnTheWayError: a link stands in its place, or on the way.
        UntoldError: there is no snapshot.
    """
    place = Path(os.path.realpath(target.parent)) / target.name
    try:
        with beneath.opened(source, beneath.DIRECTORY) as subvolume, beneath.parent(place) as (directory, name):
            _require_subvolume(subvolume)
            flags = _SUBVOL_RDONLY if read_only else 0
            fcntl.ioctl(directory, _IOC_SNAP_CREATE_V2, bytearray(_VOL_ARGS_V2.pack(subvolume, 0, flags, name)))
    except OSError as error:
        raise UntoldError("subvolume snapshot", source, error) from error


def _require_subvolume(descriptor: int) -> None:
    if os.fstat(descriptor).st_ino != filesystem.SUBVOLUME_INODE:  # old kernels do not look
        raise OSError(errno.EINVAL, "it is no subvolume")


def set_read_only(path: Path, *, read_only: bool) -> None:
    """Raises UntoldError, also where `path` is no subvolume."""
    try:
        with beneath.opened(path, beneath.DIRECTORY) as descriptor:
            answer = bytearray(_FLAGS.size)
            fcntl.ioctl(descriptor, _IOC_SUBVOL_GETFLAGS, answer)
            (flags,) = _FLAGS.unpack(answer)
            flags = flags | _SUBVOL_RDONLY if read_only else flags & ~_SUBVOL_RDONLY
            fcntl.ioctl(descriptor, _IOC_SUBVOL_SETFLAGS, _FLAGS.pack(flags))
    except OSError as error:
        raise UntoldError("property set ro", path, error) from error


def is_read_only(path: Path) -> bool:
    """Whether nobody can write to the subvolume. Raises UntoldError, also where `path` is none."""
    try:
        (flags,) = _FLAGS.unpack(_asked(path, _IOC_SUBVOL_GETFLAGS, bytes(_FLAGS.size)))
    except OSError as error:
        raise UntoldError("is read-only", path, error) from error
    return bool(flags & _SUBVOL_RDONLY)


def created_at(subvolume: Path) -> datetime:
    """When the subvolume was made, or as a snapshot taken.

    Raises:
        CommandError, ValueError: btrfs does not say it as btrfs-progs do (`Creation time: 2026-11-21 02:00:00 +0100`).
    """
    said = process.run(["btrfs", "subvolume", "show", subvolume]).text
    found = re.search(r"Creation time:\s*(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4})", said)
    if found is None:
        raise ValueError(f"btrfs does not say when {display(subvolume)} was made")
    return datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S %z")


def nested_subvolumes(subvolume: Path) -> tuple[Nested, ...]:
    """All subvolumes below this one, parents before children."""
    listed = _listed(subvolume)
    root = identifier_of(subvolume)
    below = [identifier for identifier in listed if root in _ancestors(identifier, listed)]
    read_only = _listed(subvolume, "-r") if below else {}
    # What lies below the subvolume is listed with a path relative to it, all else from the file system's top.
    found = [Nested(one, Path(os.fsdecode(listed[one][1])), one in read_only) for one in below]
    return tuple(sorted(found, key=lambda nested: nested.path.parts))


def _listed(subvolume: Path, *options: str) -> dict[int, tuple[int, bytes]]:
    """Identifier -> that of the parent, and the path. A line that begins like none goes on with the name before it."""
    listed: dict[int, tuple[int, bytes]] = {}
    latest = 0
    for line in process.lines(["btrfs", "subvolume", "list", "-p", *options, subvolume]):
        if match := _LISTED.fullmatch(line):
            latest = int(match[1])
            listed[latest] = (int(match[2]), match[3])
        elif latest:
            parent, path = listed[latest]
            listed[latest] = (parent, path + b"\n" + line)
    return listed


def identifier_of(subvolume: Path) -> int:
    """The subvolume's number, unique in its file system for all time. Raises UntoldError."""
    question = _INO_LOOKUP.pack(0, filesystem.SUBVOLUME_INODE)
    try:
        tree, _ = _INO_LOOKUP.unpack(_asked(subvolume, _IOC_INO_LOOKUP, question))
    except OSError as error:
        raise UntoldError("identifier", subvolume, error) from error
    return int(tree)


def wait_until_cleaned(volume: Path, identifiers: Sequence[int], *, time_limit_seconds: float) -> bool:
    """Wait until the space of deleted subvolumes is free again. False: it was not within the time."""
    if not identifiers:
        return True
    argv: list[process.Argument] = ["btrfs", "subvolume", "sync", volume, *map(str, identifiers)]
    try:
        process.run(argv, time_limit_seconds=time_limit_seconds)
    except process.TimeLimitError:
        return False
    return True


def _ancestors(identifier: int, listed: dict[int, tuple[int, bytes]]) -> Iterator[int]:
    while identifier in listed:
        identifier = listed[identifier][0]
        yield identifier


def snapshot_with_nested(source: Path, target: Path, nested: tuple[Path, ...]) -> None:
    """A read-only snapshot of a subvolume with the given nested ones (relative paths, parents first) in their places.

    In a plain snapshot a nested subvolume is an empty stub. It is replaced while the outer snapshot is still writable.
    """
    if not nested:
        snapshot(source, target, read_only=True)
        return
    snapshot(source, target, read_only=False)
    for path in nested:
        if filesystem.is_subvolume(source / path):
            os.rmdir(target / path)
            snapshot(source / path, target / path, read_only=False)
    for path in reversed(nested):
        if filesystem.is_subvolume(target / path):
            set_read_only(target / path, read_only=True)
    set_read_only(target, read_only=True)


def snapshot_all(source: Path, target: Path, chosen: Callable[[Nested], bool], *, read_only: bool) -> tuple[Path, ...]:
    """A snapshot of a subvolume with the chosen nested ones in their places; the stubs of all others are removed.

    What is nested is looked up after the snapshot that holds it was made, so one that is made meanwhile is either not in
    it, as it was not there yet, or is found. Returns the paths of those that were left out.

    Raises:
        CommandError, OSError: there is no whole snapshot; `target` may be there all the same.
    """
    source = Path(os.path.realpath(source))  # which the administrator may have linked; nothing below it is
    snapshot(source, target, read_only=False)
    placed: list[Path] = []
    left_out: dict[Path, None] = {}
    while True:
        stubs = [nested for nested in nested_subvolumes(source) if _is_stub(target / nested.path)]
        if not stubs:
            break
        for nested in stubs:
            stub = target / nested.path
            if not _is_stub(stub):
                continue  # it was within one that is left out, and is gone with it
            os.rmdir(stub)
            if not chosen(nested):
                left_out[nested.path] = None
            elif _placed(source / nested.path, stub):
                placed.append(nested.path)
    if read_only:
        for path in reversed(placed):
            set_read_only(target / path, read_only=True)
        set_read_only(target, read_only=True)
    return tuple(left_out)


def _placed(subvolume: Path, stub: Path) -> bool:
    """Whether it could be snapshotted into the place of its stub, which was removed: it may be elsewhere by now."""
    if not filesystem.is_subvolume(subvolume):
        return False
    try:
        snapshot(subvolume, stub, read_only=False)
    except beneath.LinkOnTheWayError:
        return False
    return True


def _is_stub(path: Path) -> bool:
    """Whether it is the empty directory that stands for a nested subvolume in a snapshot of the outer one."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_ino == _STUB_INODE


def _asked(directory: Path, request: int, question: bytes) -> bytes:
    """What the kernel makes of the question, ioctl(2). Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    answer = bytearray(question)
    try:
        fcntl.ioctl(descriptor, request, answer)
    finally:
        os.close(descriptor)
    return bytes(answer)


def delete(path: Path) -> None:
    """Delete a subvolume with all that are nested in it; nothing there is fine. Returns when the deletion is committed.

    Each is deleted by the descriptor of the directory that holds it; no link on the way is followed.

    Raises:
        CommandError, LinkOnTheWayError: it is not deleted.
    """
    if beneath.status(path) is None:
        return
    nested = [path / inner.path for inner in nested_subvolumes(path)]
    for holder in (path, *nested) if nested else ():  # one that is read-only does not let go of what is in it
        if is_read_only(holder):
            set_read_only(holder, read_only=False)
    for inner in reversed(nested):
        _destroy(inner)
    _destroy(path)
    _commit(path.parent)


def _commit(directory: Path) -> None:
    """Commit what was changed, and have the kernel begin to clean up deleted subvolumes, which syncfs(2) does not."""
    with beneath.opened(directory, beneath.DIRECTORY) as descriptor:
        fcntl.ioctl(descriptor, _IOC_SYNC)


def _destroy(subvolume: Path) -> None:
    try:
        with beneath.parent(subvolume) as (directory, name):
            fcntl.ioctl(directory, _IOC_SNAP_DESTROY, bytearray(_VOL_ARGS.pack(0, name)))
    except OSError as error:
        raise UntoldError("subvolume delete", subvolume, error) from error


def delete_directory(path: Path) -> None:
    """Delete a directory with all below it, be it a subvolume or not; nothing there is fine."""
    if filesystem.is_subvolume(path):
        delete(path)
    else:
        filesystem.remove_tree(path)


def subvolume_of(path: Path, table: tuple[filesystem.Mount, ...]) -> Path | None:
    """The root of the subvolume that holds `path`, if it is visible here; None where it is not on Btrfs."""
    mount = filesystem.mount_of(path, table)
    if mount.type != "btrfs":
        return None
    for candidate in (path, *path.parents):
        if filesystem.is_subvolume(candidate):
            return candidate
        if candidate == mount.point:
            return None
    return None
