"""A tree's random life, and everything that a copy of it must have."""

from __future__ import annotations

import fcntl
import os
import random
import stat
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

_FICLONERANGE = 0x4020940D  # linux/fs.h
_NAMES = (b"a", b"b", b"cache", b"keep.tmp", b"new\nline", b"\xff\xfe", b"-rf", b"x.log", b"deep", b"[z]", b" blank")


class Life:
    """Operations on what is below `root`, chosen by dice; what is impossible just then is left out."""

    def __init__(self, root: Path, seed: int, *, of_extents: bool = False) -> None:
        """With `of_extents`, its files are also changed in the ways that only extents tell of."""
        self._root = os.fsencode(root)
        self._operations = _OPERATIONS + (_OF_EXTENTS if of_extents else ())
        self._dice = random.Random(seed)

    def go_on(self, steps: int) -> None:
        for _ in range(steps):
            try:
                self._dice.choice(self._operations)(self)
            except OSError:
                continue

    def _all(self, kind: Callable[[int], bool] = lambda _mode: True) -> list[bytes]:
        found = [
            os.path.join(here, name) for here, directories, files in os.walk(self._root) for name in directories + files
        ]
        return sorted(path for path in found if kind(os.lstat(path).st_mode))

    def _some(self, kind: Callable[[int], bool] = lambda _mode: True) -> bytes:
        found = self._all(kind)
        if not found:
            raise FileNotFoundError
        return self._dice.choice(found)

    def _directory(self) -> bytes:
        return self._dice.choice([self._root, *self._all(stat.S_ISDIR)])

    def _name(self) -> bytes:
        """A name that may be taken."""
        return os.path.join(self._directory(), self._dice.choice(_NAMES))

    def write(self) -> None:
        self._write(self._name(), self._dice.choice([0, 10, 5000, 70000]))

    def _write(self, path: bytes, size: int) -> None:
        # Nothing outside is written through a symbolic link, and nobody reads the FIFOs.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK
        with open(os.open(path, flags, 0o644), "wb") as file:
            file.write(self._dice.randbytes(size))

    def overwrite(self) -> None:
        with open(self._some(stat.S_ISREG), "r+b") as file:
            file.seek(self._dice.randrange(9000))
            file.write(self._dice.randbytes(5))

    def truncate(self) -> None:
        os.truncate(self._some(stat.S_ISREG), self._dice.randrange(9000))

    def write_behind_its_time(self) -> None:
        path = self._some(stat.S_ISREG)
        before = os.stat(path)
        with open(path, "r+b") as file:
            file.write(self._dice.randbytes(min(4, before.st_size)))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def make_directory(self) -> None:
        os.mkdir(self._name())

    def make_directories(self) -> None:
        os.makedirs(os.path.join(self._name(), self._dice.choice(_NAMES), self._dice.choice(_NAMES)))

    def rename(self) -> None:
        os.rename(self._some(), self._name())

    def rename_directory(self) -> None:
        os.rename(self._some(stat.S_ISDIR), self._name())

    def swap(self) -> None:
        one, other = self._some(), self._some()
        if one == other or one.startswith(other + b"/") or other.startswith(one + b"/"):
            return
        aside = self._root + b"/aside"
        os.rename(one, aside)
        os.rename(other, one)
        os.rename(aside, other)

    def turn_inside_out(self) -> None:
        """a/b becomes b/a."""
        inner = self._some(stat.S_ISDIR)
        outer = os.path.dirname(inner)
        if outer == self._root:
            return
        aside = self._root + b"/aside"
        os.rename(inner, aside)
        os.rename(outer, os.path.join(aside, self._dice.choice(_NAMES)))
        os.rename(aside, outer)

    def replace_under_its_name(self) -> None:
        """What was there goes elsewhere, and something new takes its name."""
        path = self._some()
        os.rename(path, self._name())
        if self._dice.random() < 0.5:
            os.mkdir(path)
        else:
            with open(path, "wb") as file:
                file.write(b"new")

    def link(self) -> None:
        os.link(self._some(lambda mode: not stat.S_ISDIR(mode)), self._name(), follow_symlinks=False)

    def break_link(self) -> None:
        path = self._some(stat.S_ISREG)
        with open(path, "rb") as file:
            content = file.read()
        copy = path + b".copy"
        with open(copy, "wb") as file:
            file.write(content)
        os.rename(copy, path)

    def delete(self) -> None:
        os.unlink(self._some(lambda mode: not stat.S_ISDIR(mode)))

    def delete_tree(self) -> None:
        path = self._some(stat.S_ISDIR)
        for here, directories, files in os.walk(path, topdown=False):
            for name in files:
                os.unlink(os.path.join(here, name))
            for name in directories:
                inner = os.path.join(here, name)
                (os.unlink if os.path.islink(inner) else os.rmdir)(inner)
        os.rmdir(path)

    def change_type(self) -> None:
        path = self._some(lambda mode: not stat.S_ISDIR(mode))
        os.unlink(path)
        self._dice.choice([os.mkdir, os.mkfifo, lambda name: os.symlink(b"a", name)])(path)

    def symlink(self) -> None:
        os.symlink(self._dice.choice([b"a", b"/nowhere", b"../b"]), self._name())

    def device(self) -> None:
        os.mknod(self._name(), stat.S_IFCHR | 0o600, os.makedev(1, self._dice.choice([3, 5])))

    def change_mode(self) -> None:
        os.chmod(self._some(lambda mode: not stat.S_ISLNK(mode)), self._dice.choice([0o600, 0o755, 0o4711, 0o1777]))

    def change_owner(self) -> None:
        os.chown(self._some(), self._dice.randrange(3000), self._dice.randrange(3000), follow_symlinks=False)

    def change_time(self) -> None:
        os.utime(self._some(), ns=(0, self._dice.randrange(10**18)), follow_symlinks=False)

    def set_attribute(self) -> None:
        name = self._dice.choice([b"user.one", b"user.two", b"trusted.three"])
        os.setxattr(self._some(lambda mode: stat.S_ISREG(mode) or stat.S_ISDIR(mode)), name, self._dice.randbytes(6))

    def remove_attribute(self) -> None:
        path = self._some(lambda mode: stat.S_ISREG(mode) or stat.S_ISDIR(mode))
        for name in os.listxattr(path):
            os.removexattr(path, name)

    def punch(self) -> None:
        path = self._some(stat.S_ISREG)
        subprocess.run(
            ["fallocate", "-p", "-o", "4096", "-l", str(4096 * self._dice.randrange(1, 9)), path], check=True
        )

    def allocate(self) -> None:
        """Space without content: some of it within the file, perhaps some behind its end."""
        keep = self._dice.choice([[], ["--keep-size"]])
        where = ["-o", str(4096 * self._dice.randrange(9)), "-l", str(4096 * self._dice.randrange(1, 20))]
        subprocess.run(["fallocate", *keep, *where, self._some(stat.S_ISREG)], check=True)

    def clone(self) -> None:
        """Blocks of one file, or of this one's other end, take the place of some in another; both are large enough."""
        one, other = self._some(stat.S_ISREG), self._some(stat.S_ISREG)
        size, start, to = (4096 * self._dice.randrange(*limits) for limits in ((1, 5), (0, 10), (0, 10)))
        if os.path.getsize(one) < start + size:
            return
        with open(one, "rb") as source, open(other, "r+b") as target:
            fcntl.ioctl(target, _FICLONERANGE, struct.pack("=qQQQ", source.fileno(), start, size, to))

    def write_large(self) -> None:
        self._write(self._directory() + b"/large-%d" % self._dice.randrange(5), self._dice.randrange(200_000))

    def overwrite_in_places(self) -> None:
        with open(self._some(stat.S_ISREG), "r+b") as file:
            for _ in range(self._dice.randrange(1, 6)):
                file.seek(self._dice.randrange(200_000))  # perhaps far behind its end
                file.write(self._dice.randbytes(self._dice.choice([1, 4096, 9000])))


_OPERATIONS = (
    *(Life.write, Life.write, Life.write, Life.overwrite, Life.truncate, Life.write_behind_its_time),
    *(Life.make_directory, Life.make_directory, Life.make_directories, Life.rename, Life.rename),
    *(Life.rename_directory, Life.rename_directory, Life.swap, Life.swap, Life.turn_inside_out),
    *(Life.replace_under_its_name, Life.link, Life.link, Life.break_link, Life.delete, Life.delete_tree),
    *(Life.change_type, Life.symlink, Life.device, Life.change_mode, Life.change_owner, Life.change_time),
    *(Life.set_attribute, Life.remove_attribute),
)
_OF_EXTENTS = (Life.punch, Life.allocate, Life.clone, Life.overwrite_in_places, Life.write_large) * 12


def account(directory: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything that a copy must have, by path; of an inode with several names, the first stands for it."""
    root = os.fsencode(directory)
    found: dict[bytes, tuple[object, ...]] = {b"": _of(root, b"", {})}
    inodes: dict[int, bytes] = {}
    for path in sorted(os.path.join(here, name) for here, *names in os.walk(root) for name in [*names[0], *names[1]]):
        found[path[len(root) + 1 :]] = _of(path, path[len(root) + 1 :], inodes)
    return found


def _of(path: bytes, relative: bytes, inodes: dict[int, bytes]) -> tuple[object, ...]:
    status = os.lstat(path)
    content: object = None
    if stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    elif stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            content = file.read()
    xattrs = None
    if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
        xattrs = {name: os.getxattr(path, name) for name in os.listxattr(path)}
    first = relative if stat.S_ISDIR(status.st_mode) else inodes.setdefault(status.st_ino, relative)
    return (
        *(status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev),
        *(content, first, xattrs),
    )
