"""Unpacks archives that others may have written, by descriptors into a directory that no one else can reach.

Nothing leaves that directory: names with `..`, absolute ones, and those that lead through a link of the archive are left out,
and so is a second member of a name. Each archive is unpacked into a directory of its own; `merge` then brings them together.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from stackward.core.errors import DiskFullError, RefusedError, StackwardError
from stackward.core.model import display
from stackward.core.units import format_bytes
from stackward.tools import archive, beneath, filesystem
from stackward.tools.archive import Member

MOST_MEMBERS = 1_000_000
_CHUNK = 1 << 17
_ZEROS = bytes(_CHUNK)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CAPABILITY = "security.capability"  # what of root's rights the program gets
_SET_ID = stat.S_ISUID | stat.S_ISGID


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A member that was not unpacked, or not with all that it has."""

    name: bytes
    why: str


@dataclass(slots=True)
class _Unpacking:
    """`root` is the open directory. `bytes_left` is how much may yet be written."""

    root: int
    place: bytes
    privileged: Callable[[bytes, Member], bool]
    bytes_left: int
    left_out: list[LeftOut] = field(default_factory=list)
    made: dict[bytes, bool] = field(default_factory=dict)  # path -> whether it is a regular file
    directories: list[tuple[bytes, Member]] = field(default_factory=list)

    def take(self, path: bytes, member: Member, content: IO[bytes] | None) -> None:
        if path in self.made:
            self._leave_out(path, "it is in the archive twice")
            return
        try:
            self._make(path, member, content)
        except (beneath.LinkOnTheWayError, NotADirectoryError):
            self._leave_out(path, "its name leads through a link or a file of the archive")
        except FileExistsError:
            self._leave_out(path, "something else of the archive is in its place")

    def _make(self, path: bytes, member: Member, content: IO[bytes] | None) -> None:
        above = os.path.dirname(path)
        if above:
            beneath.make_directories(above, below=self.root, mode=0o755)
        if member.is_directory:
            beneath.make_directories(path, below=self.root)
            self.directories.append((path, member))
            self.made[path] = False
            return
        with beneath.parent(path, below=self.root) as (directory, name):
            if member.kind == tarfile.LNKTYPE:
                self._link(path, member, directory, name)
            elif member.is_regular:
                assert content is not None
                self._file(path, member, content, directory, name)
            else:
                self._special(path, member, directory, name)

    def _link(self, path: bytes, member: Member, directory: int, name: bytes) -> None:
        target = archive.plain_name(member.link)
        if not self.made.get(target, False):
            self._leave_out(path, "it is another name of a file that was not unpacked")
            return
        with beneath.parent(target, below=self.root) as (there, old):
            os.link(old, name, src_dir_fd=there, dst_dir_fd=directory, follow_symlinks=False)
        self.made[path] = True

    def _file(self, path: bytes, member: Member, content: IO[bytes], directory: int, name: bytes) -> None:
        if member.size > self.bytes_left:
            raise DiskFullError(
                f"what the archive holds needs more room than there is: {display(os.fsdecode(path))} has"
                f" {format_bytes(member.size)}, and {format_bytes(max(0, self.bytes_left))} may be written",
                hint="make room, or look at the archive: it may be made to fill the disk",
            )
        with filesystem.named(self.place + b"/" + path):
            descriptor = os.open(name, _CREATE, 0o600, dir_fd=directory)
            try:
                self.bytes_left -= _pour(content, descriptor)
                self._attributes(path, member, descriptor)
            finally:
                os.close(descriptor)
        self.made[path] = True

    def _special(self, path: bytes, member: Member, directory: int, name: bytes) -> None:
        if member.kind == tarfile.SYMTYPE:
            os.symlink(member.link, name, dir_fd=directory)
        elif member.kind == tarfile.FIFOTYPE:
            os.mkfifo(name, 0o600, dir_fd=directory)
        elif member.kind in (tarfile.CHRTYPE, tarfile.BLKTYPE) and self.privileged(path, member):
            kind = stat.S_IFCHR if member.kind == tarfile.CHRTYPE else stat.S_IFBLK
            os.mknod(name, kind | 0o600, os.makedev(*member.device), dir_fd=directory)
        else:
            self._leave_out(path, "it is a device node, which the stack does not have now")
            return
        os.chown(name, member.uid, member.gid, dir_fd=directory, follow_symlinks=False)
        if member.kind != tarfile.SYMTYPE:
            os.chmod(name, member.mode, dir_fd=directory)  # just made, where no one else can write
        os.utime(name, ns=(member.mtime_ns, member.mtime_ns), dir_fd=directory, follow_symlinks=False)
        self.made[path] = False

    def _attributes(self, path: bytes, member: Member, descriptor: int) -> None:
        mode, extended = member.mode, dict(member.extended)
        rights = [name for name in extended if name == _CAPABILITY]
        if (mode & _SET_ID or rights) and not self.privileged(path, member):
            if not member.is_directory:
                self._leave_out(
                    path, "it would run with the rights of its owner, which it does not now: not restored so"
                )
                mode &= ~_SET_ID
            for name in rights:
                del extended[name]
        os.fchown(descriptor, member.uid, member.gid)
        for name, value in extended.items():
            try:
                os.setxattr(descriptor, name, value)
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL):
                    raise
                self._leave_out(path, f"its attribute {name} cannot be set here")
        os.fchmod(descriptor, mode)
        os.utime(descriptor, ns=(member.mtime_ns, member.mtime_ns))

    def finish(self) -> None:
        """Directories last, the deepest first: what is made in one changes its times."""
        for path, member in sorted(self.directories, key=lambda one: one[0], reverse=True):
            with beneath.opened(path, beneath.DIRECTORY, below=self.root) as descriptor:
                self._attributes(path, member, descriptor)

    def _leave_out(self, path: bytes, why: str) -> None:
        self.left_out.append(LeftOut(path, why))


def unpack(
    source: IO[bytes],
    directory: Path,
    wanted: Callable[[bytes], bool],
    *,
    privileged: Callable[[bytes, Member], bool] = lambda _path, _member: False,
    most_bytes: int,
) -> list[LeftOut]:
    """Unpack the members whose plain names are `wanted` into an empty directory, as they were; returns what was left out.

    Device nodes, and rights that a file gives to those who run it, are restored only where `privileged` says so.

    Raises:
        DamageError: it is damaged, or has absurdly many members.
        DiskFullError: it holds more than `most_bytes`, or there is no room.
        OSError: it cannot be unpacked.
    """
    with beneath.opened(directory, beneath.DIRECTORY) as root:
        at_work = _Unpacking(root, os.fsencode(directory), privileged, most_bytes)
        for number, (member, content) in enumerate(archive.contents(source)):
            if number >= MOST_MEMBERS:
                raise RefusedError(f"the archive has more than {MOST_MEMBERS} members", hint="look at what made it")
            path = archive.plain_name(member.name)
            if not path or not wanted(path):
                continue
            if not is_inside(path):
                at_work.left_out.append(LeftOut(path, "its name leads out of the archive"))
                continue
            at_work.take(path, member, content)
        at_work.finish()
    return at_work.left_out


def is_inside(path: bytes) -> bool:
    """Tell whether a member's plain name stays below the directory it is unpacked into."""
    return b"\0" not in path and not path.startswith(b"/") and not {b"", b".", b".."} & set(path.split(b"/"))


def merge(source: Path, target: Path) -> list[LeftOut]:
    """Move all of `source` into `target`, files over files; returns what could not be, since a link or a directory is there.

    Raises:
        OSError: a name could not be moved.
    """
    left_out: list[LeftOut] = []
    _merge(source, target, b"", left_out)
    return left_out


def _merge(source: Path, target: Path, path: bytes, left_out: list[LeftOut]) -> None:
    here = source / os.fsdecode(path) if path else source
    with beneath.opened(here, beneath.DIRECTORY) as descriptor:
        names = sorted(os.fsencode(name) for name in os.listdir(descriptor))
    for name in names:
        inner = path + b"/" + name if path else name
        old, new = source / os.fsdecode(inner), target / os.fsdecode(inner)
        try:
            _merge_one(source, target, inner, old, new, left_out)
        except (StackwardError, NotADirectoryError):
            left_out.append(LeftOut(inner, "a link stands in its way in the other archive"))


def _merge_one(source: Path, target: Path, path: bytes, old: Path, new: Path, left_out: list[LeftOut]) -> None:
    mine, theirs = beneath.status(old), beneath.status(new)
    assert mine is not None
    if theirs is None:
        beneath.make_directories(new.parent)
        filesystem.rename_new(old, new)
    elif stat.S_ISDIR(mine.st_mode) and stat.S_ISDIR(theirs.st_mode):
        _merge(source, target, path, left_out)
    elif stat.S_ISREG(mine.st_mode) and stat.S_ISREG(theirs.st_mode):
        filesystem.replace(old, new)
    else:
        left_out.append(LeftOut(path, "something of another kind is in its place in the other archive"))


def _pour(content: IO[bytes], descriptor: int) -> int:
    """Write the content, long runs of zeros as holes; returns how many bytes were written."""
    written = size = 0
    while chunk := content.read(_CHUNK):
        if chunk == _ZEROS[: len(chunk)]:
            os.lseek(descriptor, len(chunk), os.SEEK_CUR)
        else:
            filesystem.write_range(descriptor, size, chunk)
            os.lseek(descriptor, size + len(chunk), os.SEEK_SET)
            written += len(chunk)
        size += len(chunk)
    os.ftruncate(descriptor, size)
    return written
