"""Reaches places below directories that others can write to: by descriptors, and through no symbolic link.

A container may swap a directory of its own tree for a link at any moment, so a path that was checked is not the path that is
opened later. Here the kernel resolves each path in one step and refuses links on the way (openat2(2), RESOLVE_NO_SYMLINKS);
the work is then done relative to the descriptor of the parent directory. Paths are absolute and real: resolve what the
administrator may have linked (BACKUP_ROOT, DOCKER_ROOT) before.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from stackward.core.errors import RefusedError
from stackward.core.model import display

_LIBC = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
_SYS_OPENAT2 = 437  # the same number on every architecture
_RESOLVE_NO_SYMLINKS = 0x04  # linux/openat2.h; it implies that no magic link is followed either
_RESOLVE_BENEATH = 0x08
_OPEN_HOW = struct.Struct("=QQQ")  # flags, mode, resolve
# An old kernel says ENOSYS; a seccomp filter that does not know the call says EPERM.
_UNKNOWN_CALL = (errno.ENOSYS, errno.EPERM)

_MAX_HANDLE_BYTES = 128  # MAX_HANDLE_SZ of linux/exportfs.h
_HANDLE = struct.Struct("=Ii")  # struct file_handle: handle_bytes, handle_type, then the bytes
_AT_EMPTY_PATH = 0x1000
_FS_IOC_GETFSUUID = 0x80111500  # linux/fs.h, since 6.9: struct fsuuid2: length, 16 bytes
_FS_UUID = struct.Struct("=B16s")
_BTRFS_IOC_FS_INFO = 0x8400941F  # linux/btrfs.h: max_id, num_devices, fsid, ...
_BTRFS_FS_INFO = struct.Struct("=QQ16s992x")
_FS_IOC_GETVERSION = 0x80087601  # linux/fs.h: the inode's generation
_NO_HANDLE = (*_UNKNOWN_CALL, errno.ENOTSUP, errno.EOPNOTSUPP)

PathLike = str | bytes | os.PathLike[str]
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# A FIFO opened so does not wait for a writer, and a device is not started.
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class LinkOnTheWayError(RefusedError):
    """A symbolic link stands where a directory was; following it could lead to anything on the host."""

    def __init__(self, path: PathLike) -> None:
        super().__init__(
            f"a symbolic link stands on the way to {display(os.fsdecode(path))}, or in its place, and is not followed",
            hint="look at what put it there; remove the link, or move the directory back, and try again",
        )


def open_path(path: PathLike, flags: int = READ, *, below: int | None = None, mode: int = 0o600) -> int:
    """Open a path of which no part is a symbolic link, and return its descriptor.

    With `below`, the path is relative to that directory and cannot leave it.

    Raises:
        LinkOnTheWayError: a part of the path is a symbolic link.
        OSError: as open(2).
    """
    name = os.fsencode(path)
    parts = name.split(b"/")
    if b".." in parts or name.startswith(b"/") is not (below is None):
        raise ValueError(f"not a path to be opened without links: {name!r}")
    try:
        return _open(name, flags, below, mode)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise LinkOnTheWayError(name) from error
        raise OSError(error.errno, error.strerror, os.fsdecode(name)) from error


@contextmanager
def opened(path: PathLike, flags: int = READ, *, below: int | None = None) -> Iterator[int]:
    """The descriptor of `open_path`, closed on leaving."""
    descriptor = open_path(path, flags, below=below)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def parent(path: PathLike, *, below: int | None = None) -> Iterator[tuple[int, bytes]]:
    """The open directory that holds `path`, and its name there; the last part may be a link, or not be there.

    Raises:
        LinkOnTheWayError, OSError: as `open_path`, of the directory.
    """
    directory, name = os.path.split(os.fsencode(path).rstrip(b"/"))
    if name in (b"", b".", b".."):
        raise ValueError(f"a path without a name of its own: {os.fsencode(path)!r}")
    if not directory and below is not None:
        yield below, name
        return
    with opened(directory or b"/", DIRECTORY, below=below) as descriptor:
        yield descriptor, name


def status(path: PathLike, *, below: int | None = None) -> os.stat_result | None:
    """The status of a path itself, a link not followed; None where it is not there.

    Raises:
        LinkOnTheWayError: a directory on the way is a symbolic link.
    """
    try:
        with parent(path, below=below) as (directory, name):
            return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def make_directories(path: PathLike, *, below: int | None = None, mode: int = 0o700) -> None:
    """Make a directory with those above it that are missing; what is there must be directories, not links."""
    name = os.fsencode(path)
    with suppress(FileNotFoundError), opened(name, DIRECTORY, below=below):
        return
    above = os.path.dirname(name)
    if above and above != name:
        make_directories(above, below=below, mode=mode)
    with parent(name, below=below) as (directory, last):
        with suppress(FileExistsError):
            os.mkdir(last, mode, dir_fd=directory)
        if not stat.S_ISDIR(os.stat(last, dir_fd=directory, follow_symlinks=False).st_mode):
            raise LinkOnTheWayError(name)


def identity(path: PathLike) -> str:
    """A file's own identity, which no other file of the host ever had: file system, subvolume, inode and generation.

    It holds across reboots and renames. "" where nothing is there. Neither device numbers (Btrfs makes them up at each
    mount) nor inode numbers (ext4 gives a freed one to the next file) could tell that much.

    Raises:
        LinkOnTheWayError: a directory on the way is a symbolic link.
    """
    try:
        with parent(path) as (directory, name):
            descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                handle = _handle(directory, name) or _generation(descriptor, directory, name)
                return f"{_file_system(directory)}:{handle}"
            finally:
                os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _open(name: bytes, flags: int, below: int | None, mode: int) -> int:
    resolve = _RESOLVE_NO_SYMLINKS | (_RESOLVE_BENEATH if below is not None else 0)
    made = mode if flags & (os.O_CREAT | os.O_TMPFILE & ~os.O_DIRECTORY) else 0
    how = _OPEN_HOW.pack(flags, made, resolve)
    at = _AT_FDCWD if below is None else below
    descriptor = int(_LIBC.syscall(_SYS_OPENAT2, at, name or b".", how, len(how)))
    if descriptor >= 0:
        return descriptor
    number = ctypes.get_errno()
    if number in _UNKNOWN_CALL:
        return _walk(name, flags, below, mode)
    raise OSError(number, os.strerror(number))


def _walk(name: bytes, flags: int, below: int | None, mode: int) -> int:
    """The same, one directory after the other, each opened without following a link."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    at = os.open(b"/", DIRECTORY) if below is None else os.dup(below)
    try:
        for number, part in enumerate(parts, 1):
            final = number == len(parts)
            found = _step(part, flags if final else os.O_PATH | os.O_CLOEXEC, at, mode)
            os.close(at)
            at = found
        if parts:
            return at
        descriptor = os.open(b".", flags, dir_fd=at)
    except BaseException:
        os.close(at)
        raise
    os.close(at)
    return descriptor


def _step(part: bytes, flags: int, at: int, mode: int) -> int:
    with suppress(FileNotFoundError):
        if stat.S_ISLNK(os.stat(part, dir_fd=at, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    descriptor = os.open(part, flags | os.O_NOFOLLOW, mode, dir_fd=at)
    if flags & os.O_PATH and stat.S_ISLNK(os.fstat(descriptor).st_mode):  # it took the directory's place meanwhile
        os.close(descriptor)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return descriptor


def _handle(directory: int, name: bytes) -> str:
    """The kernel's file handle (name_to_handle_at(2)), with the subvolume in it on Btrfs; "" where there is none."""
    buffer = ctypes.create_string_buffer(_HANDLE.pack(_MAX_HANDLE_BYTES, 0), _HANDLE.size + _MAX_HANDLE_BYTES)
    mount = ctypes.c_int()
    if _LIBC.name_to_handle_at(directory, name, buffer, ctypes.byref(mount), 0) == 0:
        size, kind = _HANDLE.unpack_from(buffer.raw)
        return f"{kind}-{buffer.raw[_HANDLE.size : _HANDLE.size + size].hex()}"
    number = ctypes.get_errno()
    if number in _NO_HANDLE:
        return ""
    raise OSError(number, os.strerror(number))


def _generation(descriptor: int, directory: int, name: bytes) -> str:
    """Inode and generation, where handles cannot be had; for what cannot be asked (links, FIFOs) the inode alone."""
    found = os.fstat(descriptor)
    generation = 0
    if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
        with suppress(OSError):
            readable = os.open(name, READ | os.O_NOFOLLOW, dir_fd=directory)
            try:
                answer = bytearray(8)
                fcntl.ioctl(readable, _FS_IOC_GETVERSION, answer)
                generation = int.from_bytes(answer[:4], "little")
            finally:
                os.close(readable)
    return f"i{found.st_ino}-{generation}"


def _file_system(directory: int) -> str:
    """The file system's UUID; its statfs(2) number where it has none."""
    for request, layout, place in ((_BTRFS_IOC_FS_INFO, _BTRFS_FS_INFO, 2), (_FS_IOC_GETFSUUID, _FS_UUID, 1)):
        answer = bytearray(layout.size)
        with suppress(OSError):
            fcntl.ioctl(directory, request, answer)
            return str(layout.unpack(answer)[place].hex())
    return f"{os.fstatvfs(directory).f_fsid:x}"
