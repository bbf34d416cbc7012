"""How large trees are, as `du` would say it, in bounded time, remembered for a while."""

from __future__ import annotations

import json
import os
import stat
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackward.core.errors import RefusedError
from stackward.tools import filesystem, tree_root
from stackward.tools.tree_root import TreeRoot

if TYPE_CHECKING:
    from collections.abc import Iterable

_FRESH = timedelta(hours=1)
_WORTH_KEEPING_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Size:
    """Regular files and their lengths; `allocated_bytes` is what they take on disk.

    Hard links count once. Not `complete`: time ran out or something could not be read, and there is at least this much.
    """

    files: int = 0
    bytes: int = 0
    allocated_bytes: int = 0
    complete: bool = True


def measure(path: Path, *, seconds: float) -> Size:
    """Walk `path` without following symlinks below it, no longer than `seconds`. A missing directory is empty."""
    deadline = time.monotonic() + seconds
    try:
        with tree_root.opened(Path(os.path.realpath(path))) as root:
            return _measured(root, deadline)
    except FileNotFoundError:
        return Size()
    except (OSError, RefusedError):
        return Size(complete=False)


def _measured(root: TreeRoot, deadline: float) -> Size:
    files = length = allocated = 0
    complete = True
    linked: set[tuple[int, int]] = set()
    todo = [b""]
    while todo:
        if time.monotonic() > deadline:
            return Size(files, length, allocated, complete=False)
        directory = todo.pop()
        try:
            for entry, name in tree_root.entries(directory, below=root.descriptor):
                if entry.is_dir(follow_symlinks=False):
                    todo.append(directory + b"/" + name if directory else name)
                    continue
                with suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    if not stat.S_ISREG(found.st_mode) or (found.st_dev, found.st_ino) in linked:
                        continue
                    if found.st_nlink > 1:
                        linked.add((found.st_dev, found.st_ino))
                    files += 1
                    length += found.st_size
                    allocated += found.st_blocks * 512
        except FileNotFoundError:
            continue
        except (OSError, RefusedError):
            complete = False
    return Size(files, length, allocated, complete)


def cache_file(state_dir: Path) -> Path:
    """Where the sizes of this host's trees are remembered."""
    return state_dir / "cache" / "sizes.json"


class Sizes:
    """Sizes of many trees within one budget of time; what took long is remembered for an hour in `file`."""

    def __init__(self, file: Path, now: datetime, *, seconds: float = 10.0) -> None:
        self._file = file
        self._now = now
        self._seconds = seconds
        self._known = _load(file)

    def of(self, path: Path) -> Size:
        if (known := self.known(path)) is not None:
            return known
        began = time.monotonic()
        size = measure(path, seconds=max(self._seconds, 0.05))
        took = time.monotonic() - began
        self._seconds -= took
        if took > _WORTH_KEEPING_SECONDS and size.complete:
            self._known[str(path)] = {"at": self._now.isoformat(), **asdict(size)}
            self._save()
        return size

    def total(self, paths: Iterable[Path]) -> Size:
        """Together, a tree within another counted once."""
        sizes: list[Size] = []
        counted: list[Path] = []
        for path in sorted(set(paths)):
            if not any(path.is_relative_to(other) for other in counted):
                counted.append(path)
                sizes.append(self.of(path))
        return Size(
            sum(size.files for size in sizes),
            sum(size.bytes for size in sizes),
            sum(size.allocated_bytes for size in sizes),
            all(size.complete for size in sizes),
        )

    def known(self, path: Path) -> Size | None:
        """What is remembered of it; nothing is measured."""
        entry = self._known.get(str(path))
        if entry is None:
            return None
        try:
            age = self._now - datetime.fromisoformat(entry["at"])
            if not timedelta(0) <= age <= _FRESH:
                return None
            return Size(entry["files"], entry["bytes"], entry["allocated_bytes"], entry["complete"])
        except (KeyError, ValueError, TypeError):
            return None

    def _save(self) -> None:
        with suppress(OSError):  # a cache that cannot be written costs time, no more
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            filesystem.write_durably(self._file, json.dumps(self._known).encode("ascii"))


def _load(file: Path) -> dict[str, dict[str, Any]]:
    try:
        document = json.loads(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
