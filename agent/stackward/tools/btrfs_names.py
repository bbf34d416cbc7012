"""The names of a file on Btrfs, by its inode number: from the references that the file system keeps beside the inode.

The kernel has a call of its own for that (BTRFS_IOC_INO_PATHS), but it wants CAP_DAC_READ_SEARCH, and tells 4096 bytes at
most. What is used here wants CAP_SYS_ADMIN, as deleting snapshots does, and tells all (linux/btrfs.h, linux/btrfs_tree.h).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

_IOC_TREE_SEARCH = 0xC0709411
# struct btrfs_ioctl_search_args_v2: the tree, objects, offsets, transactions (each from and to), types from and to, how many
# items, then the size of the room for the answer, which follows
_SEARCH = struct.Struct("=7Q3I36xQ")
_FOUND = struct.Struct("=64xI")  # how many items were found
_ROOM = 1 << 16
_HEADER = struct.Struct("=QQQII")  # struct btrfs_ioctl_search_header: transaction, object, offset, type, length
_ANY = (1 << 64) - 1
_ITEMS = (1 << 32) - 1

_INODE_REF, _INODE_EXTREF = 12, 13  # the types; an extref is what does not fit into one item of refs
_REF = struct.Struct("=QH")  # index, length of the name; the item's offset is the directory
_EXTREF = struct.Struct("=QQH")  # directory, index, length of the name

_IOC_INO_LOOKUP = 0xD0009412
_INO_LOOKUP = struct.Struct("=QQ4080s")  # struct btrfs_ioctl_ino_lookup_args: tree (0: this one), object, its path


def names_of_inode(subvolume: Path, inode: int) -> tuple[Path, ...]:
    """All names of a file of the subvolume.

    Raises:
        OSError: they cannot be told; FileNotFoundError where there is no such file.
    """
    descriptor = os.open(subvolume, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        directories: dict[int, Path] = {}
        names = []
        for parent, name in _references(descriptor, inode):
            if parent not in directories:
                directories[parent] = subvolume / os.fsdecode(_path_of(descriptor, parent))
            names.append(directories[parent] / os.fsdecode(name))
    finally:
        os.close(descriptor)
    if not names:
        raise FileNotFoundError(errno.ENOENT, f"no file has the inode {inode}", str(subvolume))
    return tuple(names)


def of_shared(subvolume: Path, directory: Path, paths: Iterable[bytes]) -> set[bytes]:
    """All names, within a directory of the subvolume, of those files among `paths` that have several; relative to it.

    Raises:
        OSError: they cannot be told, or something is not there.
    """
    here = os.fsencode(directory)
    found = (os.lstat(here + b"/" + path) for path in paths)
    inodes = {status.st_ino for status in found if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1}
    names = (os.fsencode(name) for inode in inodes for name in names_of_inode(subvolume, inode))
    return {name.removeprefix(here + b"/") for name in names if name.startswith(here + b"/")}


def _references(descriptor: int, inode: int) -> Iterator[tuple[int, bytes]]:
    """The directory's inode and the name in it, of each name."""
    kind, offset = _INODE_REF, 0
    while True:
        question = _SEARCH.pack(0, inode, inode, offset, _ANY, 0, _ANY, kind, _INODE_EXTREF, _ITEMS, _ROOM)
        answer = bytearray(question + bytes(_ROOM))
        fcntl.ioctl(descriptor, _IOC_TREE_SEARCH, answer)
        (count,) = _FOUND.unpack_from(answer)
        at = _SEARCH.size
        for _ in range(count):
            _transaction, _inode, offset, kind, length = _HEADER.unpack_from(answer, at)
            at += _HEADER.size
            yield from _in_item(bytes(answer[at : at + length]), kind, offset)
            at += length
        if not count or offset == _ANY:
            return
        offset += 1


def _in_item(item: bytes, kind: int, parent: int) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(item):
        if kind == _INODE_REF:
            _index, length = _REF.unpack_from(item, at)
            at += _REF.size
        else:
            parent, _index, length = _EXTREF.unpack_from(item, at)
            at += _EXTREF.size
        yield parent, item[at : at + length]
        at += length


def _path_of(descriptor: int, directory: int) -> bytes:
    """A directory's path within the subvolume, b"" for its root."""
    answer = bytearray(_INO_LOOKUP.pack(0, directory, b""))
    fcntl.ioctl(descriptor, _IOC_INO_LOOKUP, answer)
    path: bytes = _INO_LOOKUP.unpack(answer)[2]
    return path[: path.index(b"\0")].rstrip(b"/")
