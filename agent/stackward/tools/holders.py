"""Who still uses a subvolume: open files, working directories and mounts of every process that can be seen.

A subvolume has a device number of its own, so its files are known by that, under any name; until it is deleted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stackward.core.model import display

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True, order=True)
class Holder:
    """A process and what it uses: `how` is "open file", "working directory", "root directory" or "mount"."""

    pid: int
    program: str
    how: str
    path: str

    @property
    def is_alive(self) -> bool:
        return (_PROC / str(self.pid)).exists()

    def __str__(self) -> str:
        return f"{self.program} (process {self.pid}): {self.how} {display(self.path)}"


def device_of(subvolume: Path) -> int:
    return os.stat(subvolume).st_dev


def holders(devices: Iterable[int]) -> tuple[Holder, ...]:
    """Who uses the subvolumes with these device numbers, one line a process and manner; our own process is left out.

    Mounts of processes that share a mount namespace are told once. Processes that cannot be seen from here (another
    namespace, other rights) are not told.
    """
    wanted = frozenset(devices)
    found: dict[tuple[int, str], Holder] = {}
    namespaces: set[str] = set()
    for pid in sorted(int(entry) for entry in os.listdir(_PROC) if entry.isdecimal()):
        if pid == os.getpid():
            continue
        try:
            for how, path in _uses(pid, wanted, namespaces):
                found.setdefault((pid, how), Holder(pid, _program(pid), how, path))
        except OSError:
            continue  # it has ended, or is not ours to see
    return tuple(sorted(found.values()))


def _uses(pid: int, wanted: frozenset[int], namespaces: set[str]) -> Iterator[tuple[str, str]]:
    process = _PROC / str(pid)
    for name, how in (("cwd", "working directory"), ("root", "root directory")):
        if _device(process / name) in wanted:
            yield how, os.readlink(process / name)
    for descriptor in os.listdir(process / "fd"):
        if _device(process / "fd" / descriptor) in wanted:
            yield "open file", os.readlink(process / "fd" / descriptor)
    namespace = os.readlink(process / "ns/mnt")
    if namespace in namespaces:
        return
    namespaces.add(namespace)
    for line in (process / "mountinfo").read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        if not after.startswith(b"btrfs "):
            continue
        point = before.split(b" ")[4].decode("unicode_escape").encode("latin-1")
        if _device(Path(os.fsdecode(os.fsencode(process / "root") + point))) in wanted:
            yield "mount", os.fsdecode(point)


def _device(path: Path) -> int | None:
    try:
        return os.stat(path).st_dev
    except OSError:
        return None


def _program(pid: int) -> str:
    try:
        return (_PROC / str(pid) / "comm").read_text(encoding="utf-8", errors="backslashreplace").strip()
    except OSError:
        return ""
