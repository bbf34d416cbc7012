"""The `btrfs` command. Paths are directories that this process sees; errors are CommandError."""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stackward.tools import filesystem, process

_LISTED = re.compile(rb"ID (\d+) gen \d+ (?:cgen \d+ )?parent (\d+) top level \d+ path (.*)", re.DOTALL)

# linux/btrfs.h: struct btrfs_ioctl_ino_path_args, struct btrfs_data_container (its values are offsets to names)
_IOC_INO_PATHS = 0xC0389423
_INO_PATHS = struct.Struct("=QQQQQQQ")
_CONTAINER = struct.Struct("=IIII")
_ANSWER_BYTES = 4096  # the most that the kernel fills


@dataclass(frozen=True, slots=True)
class Nested:
    """A subvolume below another one; `path` is relative to that one."""

    identifier: int
    path: Path


def create_subvolume(path: Path) -> None:
    process.run(["btrfs", "subvolume", "create", path])


def sync(path: Path) -> None:
    """Commit everything written to the file system, so that a snapshot has nothing left to flush."""
    process.run(["btrfs", "filesystem", "sync", path])


def snapshot(source: Path, target: Path, *, read_only: bool) -> None:
    process.run(["btrfs", "subvolume", "snapshot", *(["-r"] if read_only else []), source, target])


def set_read_only(path: Path, *, read_only: bool) -> None:
    process.run(["btrfs", "property", "set", "-t", "subvol", path, "ro", "true" if read_only else "false"])


def is_read_only(path: Path) -> bool:
    return process.run(["btrfs", "property", "get", "-t", "subvol", path, "ro"]).text.strip() == "ro=true"


def nested_subvolumes(subvolume: Path) -> tuple[Nested, ...]:
    """All subvolumes below this one, parents before children."""
    listed: dict[int, tuple[int, bytes]] = {}
    for line in process.lines(["btrfs", "subvolume", "list", "-p", subvolume]):
        if match := _LISTED.fullmatch(line):
            listed[int(match[1])] = (int(match[2]), match[3])
    root = int(process.run(["btrfs", "inspect-internal", "rootid", subvolume]).text)
    # What lies below the subvolume is listed with a path relative to it, all else from the file system's top.
    found = [
        Nested(identifier, Path(os.fsdecode(path)))
        for identifier, (_, path) in listed.items()
        if root in _ancestors(identifier, listed)
    ]
    return tuple(sorted(found, key=lambda nested: nested.path.parts))


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


def names_of_inode(subvolume: Path, inode: int) -> tuple[Path, ...]:
    """All names of a file of the subvolume.

    Raises:
        OSError, ValueError: they cannot be told (also where they are too many for the kernel to say at once).
    """
    answer = ctypes.create_string_buffer(_ANSWER_BYTES)
    question = _INO_PATHS.pack(inode, _ANSWER_BYTES, 0, 0, 0, 0, ctypes.addressof(answer))
    descriptor = os.open(subvolume, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _IOC_INO_PATHS, question)
    finally:
        os.close(descriptor)
    _left, _missing, count, missed = _CONTAINER.unpack_from(answer, 0)
    if missed or not count:
        raise ValueError(f"not all names of inode {inode} can be told")
    names = []
    for (offset,) in struct.iter_unpack("=Q", answer.raw[_CONTAINER.size : _CONTAINER.size + 8 * count]):
        start = _CONTAINER.size + offset
        names.append(subvolume / os.fsdecode(answer.raw[start : answer.raw.index(b"\0", start)]))
    return tuple(names)


def delete(path: Path) -> None:
    """Delete a subvolume with all that are nested in it; nothing there is fine. Returns when the deletion is committed."""
    if not os.path.lexists(path):
        return
    nested = [path / inner.path for inner in nested_subvolumes(path)]
    for holder in (path, *nested) if nested else ():  # one that is read-only does not let go of what is in it
        if is_read_only(holder):
            set_read_only(holder, read_only=False)
    for inner in reversed(nested):
        process.run(["btrfs", "subvolume", "delete", inner])
    process.run(["btrfs", "subvolume", "delete", "--commit-after", path])


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
