"""A container at work against a reader of its tree: it swaps a directory for a link again and again (renameat2(2))."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stackward.tools import filesystem

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
