"""Resolved models, kept for as long as nothing they were made from changes; and for when Compose refuses a stack.

One file a stack under `<state>/cache/stacks`, readable by root alone: models hold the values of env files.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackward.tools import filesystem

if TYPE_CHECKING:
    from collections.abc import Sequence

_FORMAT = 1
Stamp = tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A stack's last good resolution. `stamps`: (mtime in ns, size, inode) of each dependency, None for an absent one."""

    model: dict[str, Any]
    warnings: tuple[str, ...]
    files: tuple[Path, ...]
    env_files: tuple[Path, ...]
    stamps: dict[str, Stamp]

    def is_fresh(self, files: Sequence[Path]) -> bool:
        return tuple(files) == self.files and all(stamp(Path(name)) == known for name, known in self.stamps.items())


def stamps(paths: Sequence[Path]) -> dict[str, Stamp]:
    """Take them before the files are read: what changes meanwhile is then seen next time."""
    return {str(path): stamp(path) for path in paths}


def stamp(path: Path) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)


class Cache:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self, stack_directory: Path) -> Entry | None:
        """The last good resolution, fresh or stale; None when there is none that can be read."""
        try:
            document = json.loads(self._path(stack_directory).read_text(encoding="utf-8"))
            if document["format"] != _FORMAT or document["directory"] != str(stack_directory):
                return None
            return Entry(
                model=document["model"],
                warnings=tuple(document["warnings"]),
                files=tuple(map(Path, document["files"])),
                env_files=tuple(map(Path, document["env_files"])),
                stamps={name: tuple(value) if value else None for name, value in document["stamps"].items()},
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def save(self, stack_directory: Path, entry: Entry) -> None:
        """A cache that cannot be written costs time, no more."""
        document = {
            "format": _FORMAT,
            "directory": str(stack_directory),
            "model": entry.model,
            "warnings": entry.warnings,
            "files": [str(path) for path in entry.files],
            "env_files": [str(path) for path in entry.env_files],
            "stamps": entry.stamps,
        }
        with suppress(OSError):
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            filesystem.write_durably(self._path(stack_directory), json.dumps(document).encode("ascii"))

    def _path(self, stack_directory: Path) -> Path:
        return self._directory / f"{hashlib.sha256(os.fsencode(stack_directory)).hexdigest()}.json"
