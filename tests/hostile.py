"""A container at work against a reader of its tree: it swaps a directory for a link again and again (renameat2(2))."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stackward.tools import filesystem

_LIBC = ctypes.CDLL(None, use_errno=True)
_IN_OPEN, _IN_ISDIR = 0x20, 0x40000000
_EVENT = struct.Struct("=iIII")  # watch, mask, cookie, length of the name

SECRET = "the victim's secret"  # what must appear nowhere


def _flip(one: Path, other: Path) -> None:
    parent = os.getppid()
    while os.getppid() == parent:
        for _ in range(200):
            filesystem.exchange(one, other)


@contextmanager
def flipping(one: Path, other: Path) -> Iterator[None]:
    """Both names are swapped in a tight loop meanwhile, by a process of its own."""
    process = multiprocessing.get_context("fork").Process(target=_flip, args=(one, other), daemon=True)
    process.start()
    time.sleep(0.05)
    try:
        yield
    finally:
        process.kill()
        process.join()


@contextmanager
def flipped_for_link(directory: Path, victim: Path) -> Iterator[None]:
    """`directory` is itself and a link to `victim` by turns; a name beside it is the other one."""
    link = directory.with_name("." + directory.name)
    link.symlink_to(victim)
    with flipping(directory, link):
        yield
    if directory.is_symlink():
        filesystem.exchange(directory, link)
    link.unlink()


def make_victim(at: Path, names: Iterator[str] | list[str], content: str = SECRET) -> Path:
    """A directory of another stack, with the same names in it."""
    at.mkdir(parents=True)
    for name in names:
        (at / name).write_text(content)
        os.setxattr(at / name, "trusted.secret", content.encode())
    return at


def leaks(directory: Path, secret: str = SECRET) -> list[str]:
    """The files below `directory` whose content or attributes have the secret."""
    wanted = secret.encode()
    found = []
    for here, _, files in os.walk(directory):
        for path in (Path(here, name) for name in files):
            if path.is_symlink() or not path.is_file():
                continue
            values = [os.getxattr(path, name) for name in os.listxattr(path)]
            if wanted in path.read_bytes() or any(wanted in value for value in values):
                found.append(str(path))
    return found


@contextmanager
def watched(directory: Path) -> Iterator[list[str]]:
    """The names of the files directly in `directory` that are opened meanwhile, filled in at the end (inotify(7))."""
    opened: list[str] = []
    descriptor = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert _LIBC.inotify_add_watch(descriptor, os.fsencode(directory), _IN_OPEN) > 0
    try:
        yield opened
    finally:
        with suppress(BlockingIOError):
            while events := os.read(descriptor, 1 << 16):
                at = 0
                while at < len(events):
                    _watch, mask, _cookie, length = _EVENT.unpack_from(events, at)
                    at += _EVENT.size + length
                    if not mask & _IN_ISDIR:
                        opened.append(os.fsdecode(events[at - length : at].rstrip(b"\0")))
        os.close(descriptor)
