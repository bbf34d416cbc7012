"""What a file system must do for us: make things durable, swap names, tell what is mounted where.

Paths may be str, bytes or Path; names that are not UTF-8 pass through unharmed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import shutil
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from stackward.core.errors import NO_ROOM, DiskFullError
from stackward.core.model import display
from stackward.tools import beneath

_LIBC = ctypes.CDLL(None, use_errno=True)
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2
_FICLONERANGE = 0x4020940D  # linux/fs.h: struct file_clone_range: source, offset, length, offset in the target
_CLONE_RANGE = struct.Struct("=qQQQ")
SUBVOLUME_INODE = 256  # BTRFS_FIRST_FREE_OBJECTID: the root directory of every subvolume
_FEW_BLOCKS = 64
_CLOCK_REALTIME_COARSE = 5  # linux/time.h
_OCTAL = re.compile(rb"\\([0-7]{3})")

REMOTE_TYPES = frozenset({"nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "fuse.rclone", "fuse.s3fs", "ceph", "9p"})


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of /proc/self/mountinfo. `device` ("0:42") is equal for all mounts of one file system."""

    point: Path
    device: str
    root: str
    type: str
    source: str
    options: frozenset[str]
    propagation: frozenset[str] = frozenset()


def mounts() -> tuple[Mount, ...]:
    """What is mounted now, as this process sees it (proc(5), mountinfo); later lines cover earlier ones."""
    found = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        fields = before.split(b" ")
        kind, source, _super = after.split(b" ", 2)
        found.append(
            Mount(
                point=Path(os.fsdecode(_unescape(fields[4]))),
                device=fields[2].decode("ascii"),
                root=os.fsdecode(_unescape(fields[3])),
                type=kind.decode("ascii", "replace"),
                source=os.fsdecode(_unescape(source)),
                options=frozenset(fields[5].decode("ascii", "replace").split(",")),
                propagation=frozenset(field.decode("ascii", "replace").partition(":")[0] for field in fields[6:]),
            )
        )
    return tuple(found)


def mount_of(path: Path, table: tuple[Mount, ...]) -> Mount:
    """The mount that holds `path` (which need not exist)."""
    best = None
    for mount in table:
        if (path == mount.point or mount.point in path.parents) and (
            best is None or len(mount.point.parts) >= len(best.point.parts)
        ):
            best = mount
    if best is None:
        raise FileNotFoundError(errno.ENOENT, "no mount holds it", str(path))
    return best


def is_on_btrfs(path: Path) -> bool:
    return mount_of(Path(os.path.realpath(path)), mounts()).type == "btrfs"


@contextmanager
def named(path: bytes) -> Iterator[None]:
    """Errors that name nothing (of what is done by descriptor) name the path; DiskFullError where there is no room."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise DiskFullError.at(display(os.fsdecode(path))) from error
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, os.fsdecode(path)) from error


def is_subvolume(path: Path) -> bool:
    """Whether an existing directory is the root of a Btrfs subvolume."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_ino == SUBVOLUME_INODE and is_on_btrfs(path)


def free_bytes(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def has_room(path: Path | bytes | int) -> bool:
    """Whether a few blocks are free: what the system calls a lack of room is something else then."""
    found = os.statvfs(path)
    return found.f_bavail > _FEW_BLOCKS


def stamp() -> float:
    """What the kernel would stamp a file with that changed now, in seconds since the epoch."""
    return time.clock_gettime(_CLOCK_REALTIME_COARSE)


def sync_filesystem(path: Path) -> None:
    """Everything written so far to the file system of `path` is on disk on return (syncfs(2)); raises OSError."""
    with _opened(path) as descriptor:
        if _LIBC.syncfs(descriptor) != 0:
            _raise(path)


def sync_path(path: Path) -> None:
    """A file or directory itself is on disk on return."""
    with _opened(path) as descriptor:
        os.fsync(descriptor)


def sync_parents(*paths: Path) -> None:
    """The directories that hold `paths` are on disk on return, with the names in them; no link is followed."""
    for directory in dict.fromkeys(path.parent for path in paths):
        with beneath.opened(directory, beneath.DIRECTORY) as descriptor:
            os.fsync(descriptor)


def write_durably(path: Path, content: bytes, *, mode: int = 0o600, like: os.stat_result | None = None) -> None:
    """Replace `path` by `content` so that after a crash it is either the old file or the whole new one.

    The file gets owner and mode of `like`, where that is given. No link is written through.

    Raises:
        LinkOnTheWayError, OSError: it is not written.
    """
    with beneath.parent(path) as (directory, name):
        temporary = b".%s.%d.tmp" % (name, os.getpid())
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, mode, dir_fd=directory)
        try:
            with open(descriptor, "wb") as file:
                if like is not None:
                    os.fchown(descriptor, like.st_uid, like.st_gid)
                    os.fchmod(descriptor, stat.S_IMODE(like.st_mode))
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=directory)
            raise
        os.fsync(directory)


def is_plain_directory(root: Path, relative: str) -> bool:
    """Whether `relative` is a directory below `root`, and no link is on the way to it or in its place."""
    place = root
    for part in relative.split("/"):
        place /= part
        try:
            if not stat.S_ISDIR(os.lstat(place).st_mode):
                return False
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True


def punch_hole(descriptor: int, offset: int, size: int) -> None:
    """Make a range of an open file a hole: it reads as zeros and takes no space (fallocate(2)); the size stays."""
    how = _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE
    if _LIBC.fallocate(descriptor, how, ctypes.c_int64(offset), ctypes.c_int64(size)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def clone_range(source: int, start: int, size: int, target: int, offset: int) -> bool:
    """Let a range of the open file `target` share its blocks with one of `source`, ioctl_ficlonerange(2).

    False where it does not, for whatever reason: then the range is for the caller to write.
    """
    try:
        fcntl.ioctl(target, _FICLONERANGE, _CLONE_RANGE.pack(source, start, size, offset))
    except OSError:
        return False
    return True


def data_and_holes(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """A range of an open file in its order: where each piece begins and ends, and whether it is data (lseek(2))."""
    at = start
    while at < end:
        data = _next(descriptor, at, os.SEEK_DATA, end)
        if data > at:
            yield at, data, False
        at = _next(descriptor, data, os.SEEK_HOLE, end) if data < end else end
        if at > data:
            yield data, at, True


def _next(descriptor: int, at: int, kind: int, end: int) -> int:
    try:
        return min(os.lseek(descriptor, at, kind), end)
    except OSError as error:
        if error.errno != errno.ENXIO:  # nothing of the kind after it
            raise
        return end


def read_range(descriptor: int, offset: int, size: int) -> bytes:
    """Exactly so many bytes. Raises OSError, also where the file ends before."""
    parts = []
    while size:
        part = os.pread(descriptor, size, offset)
        if not part:
            raise OSError(errno.EIO, "the file ends early")
        parts.append(part)
        offset, size = offset + len(part), size - len(part)
    return b"".join(parts)


def write_range(descriptor: int, offset: int, content: bytes) -> int:
    """Write all of it; returns how many bytes that are."""
    rest = memoryview(content)
    while rest:
        done = os.pwrite(descriptor, rest, offset)
        offset, rest = offset + done, rest[done:]
    return len(content)


def exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step. False where the file system cannot (then nothing has changed).

    No link on the way to either is followed, as with all that follow here that rename or remove; LinkOnTheWayError then.
    """
    return _renameat2(one, other, _RENAME_EXCHANGE)


def rename_new(source: Path, target: Path) -> None:
    """Rename without ever replacing anything.

    Raises:
        FileExistsError: `target` is there.
    """
    if not _renameat2(source, target, _RENAME_NOREPLACE):
        if beneath.status(target) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        replace(source, target)


def replace(source: Path | bytes, target: Path | bytes) -> None:
    """Rename over whatever file is there."""
    with beneath.parent(source) as (old, name), beneath.parent(target) as (new, wanted):
        os.rename(name, wanted, src_dir_fd=old, dst_dir_fd=new)


def remove(path: Path | bytes) -> None:
    """Remove a file or a link itself; nothing there is fine."""
    with suppress(FileNotFoundError, NotADirectoryError), beneath.parent(path) as (directory, name):
        os.unlink(name, dir_fd=directory)


def remove_tree(path: Path) -> None:
    """Remove a file or directory with all below it; nothing there is fine.

    Raises:
        OSError: it is not all gone; EBUSY, and nothing is, where something is mounted on it or below it.
    """
    found = beneath.status(path)
    if found is None:
        return
    if not stat.S_ISDIR(found.st_mode):
        remove(path)
        return
    for mount in mounts():
        if mount.point == path or path in mount.point.parents:
            raise OSError(errno.EBUSY, f"{display(mount.point)} is mounted, and nothing below it is removed", str(path))
    with beneath.parent(path) as (directory, name):
        shutil.rmtree(name, dir_fd=directory)


def sorted_entries(directory: bytes) -> list[os.DirEntry[bytes]]:
    """What is in a directory, in the order of the bytes of the paths in and below it; nothing where it is gone."""
    try:
        with os.scandir(directory) as entries:
            return sorted(entries, key=lambda e: e.name + b"/" if e.is_dir(follow_symlinks=False) else e.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _unescape(field: bytes) -> bytes:
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _renameat2(source: Path, target: Path, flags: int) -> bool:
    with beneath.parent(source) as (old, name), beneath.parent(target) as (new, wanted):
        if _LIBC.renameat2(old, name, new, wanted, flags) == 0:
            return True
        number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(source), None, str(target))


def _raise(path: Path) -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), str(path))
