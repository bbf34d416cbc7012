"""What can be seen of DOCKER_ROOT at a glance: which directories are stacks, and whether their own files have changed.

Only files directly in a stack's directory are looked at, never its data; nothing is read.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stackward.tools import filesystem
from stackward.tools.compose_files import ENVIRONMENT_FILE, NAMES, OVERRIDES, find_files

# A directory with more than this many entries holds data: there only these files count.
_ENTRIES = 2000
_WELL_KNOWN = (*NAMES, *OVERRIDES, ENVIRONMENT_FILE)
# What editors, and programs that log, leave and take away again.
_NOISE = re.compile(r"\.(?:swp|swo|swx|tmp|log|lock|pid|part)$|~$|^\.#|^#.*#$|^4913$|^\.nfs|^\.stackward")


@dataclass(frozen=True, slots=True)
class Sight:
    """`stacks` is name → fingerprint of its files, `others` the directories that are no stacks (yet)."""

    stacks: Mapping[str, str] = field(default_factory=dict)
    others: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Differences:
    new: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.new or self.gone or self.changed)


def look(root: Path) -> Sight:
    """Raises OSError where `root` cannot be listed. Directories on file servers are left out: a dead one never answers."""
    remote = {mount.point for mount in filesystem.mounts() if mount.type in filesystem.REMOTE_TYPES}
    stacks: dict[str, str] = {}
    others: set[str] = set()
    for name in os.listdir(root):
        directory = root / name
        if directory in remote or not directory.is_dir():
            continue
        try:
            if find_files(directory):
                stacks[name] = _fingerprint(directory)
            else:
                others.add(name)
        except OSError:
            others.add(name)  # it went away, or cannot be read: the next look tells
    return Sight(stacks, frozenset(others))


def compare(before: Sight, after: Sight) -> Differences:
    both = before.stacks.keys() & after.stacks.keys()
    return Differences(
        new=tuple(sorted(after.stacks.keys() - both)),
        gone=tuple(sorted(before.stacks.keys() - both)),
        changed=tuple(sorted(name for name in both if before.stacks[name] != after.stacks[name])),
    )


def _fingerprint(directory: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in _names(directory):
        try:
            found = os.stat(directory / name, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode):
            facts = (found.st_size, found.st_mtime_ns, found.st_ino, found.st_mode, found.st_uid, found.st_gid)
            digest.update(os.fsencode(name) + b"\0" + repr(facts).encode("ascii"))
    return digest.hexdigest()


def _names(directory: Path) -> list[str]:
    names = os.listdir(directory)
    if len(names) > _ENTRIES:
        return sorted(set(names) & set(_WELL_KNOWN))
    return sorted(name for name in names if not _NOISE.search(name))
