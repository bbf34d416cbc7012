"""What backups there are: the finished artifacts in BACKUP_ROOT, and what each of them holds.

The seed's backups are in it too: data directories without `stackward.json` hold what their directories' names say.
"""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from stackward.config import Settings
from stackward.core import records
from stackward.core.artifacts import (
    CHECKSUM_SUFFIX,
    DUMPS,
    INDEX,
    MANIFEST,
    MOUNTS,
    RESERVED_STACK_NAMES,
    ArtifactKind,
    ArtifactName,
    parse_name,
)
from stackward.core.errors import RefusedError, SettingsError
from stackward.core.index import DumpEntry, Index, TreeEntry, parse_index
from stackward.core.model import display
from stackward.core.records import NewerRecordError
from stackward.steps import artifact_files, backup_paths
from stackward.steps.backup_root import require
from stackward.tools import filesystem, small_files

_AHEAD = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A finished backup. `index` is None for the seed's ones and where `problem` says that it cannot be read.

    `newer`: only a newer version understands it. It is listed and kept, and read by its manifest alone.

    `stacks` is what a data backup holds; it is empty for the other kinds, which hold all of DOCKER_ROOT.
    `size_bytes` is None where only reading everything could tell.
    """

    name: ArtifactName
    path: Path
    made_at: datetime
    size_bytes: int | None = None
    index: Index | None = None
    stacks: tuple[str, ...] = ()
    problem: str = ""
    newer: bool = False

    @property
    def kind(self) -> ArtifactKind:
        return self.name.kind

    @property
    def replaced(self) -> bool:
        return self.name.replaced_at is not None

    @property
    def checksum_path(self) -> Path:
        """Where the checksum is: `.sha256` beside a file, the manifest within a data backup."""
        if self.kind is ArtifactKind.DATA:
            return self.path / MANIFEST
        return self.path.with_name(self.path.name + CHECKSUM_SUFFIX)

    def prefixes(self, stack: str) -> tuple[str, ...]:
        """The paths within a data backup that belong to `stack`."""
        entry = self.index.stacks.get(stack) if self.index else None
        if entry:
            return entry.prefixes
        candidates = (stack, f"{MOUNTS}/{stack}", f"{DUMPS}/{stack}")
        return tuple(path for path in candidates if filesystem.is_plain_directory(self.path, path))

    def trees(self, stack: str) -> tuple[TreeEntry, ...]:
        """The stack's trees in a data backup; told from directories where there is no index."""
        entry = self.index.stacks.get(stack) if self.index else None
        if entry:
            return entry.trees
        found = []
        if stack in artifact_files.directories(self.path):
            found.append(_bare_tree("data", "data", stack))
        names = artifact_files.directories(self.path, f"{MOUNTS}/{stack}")
        return (*found, *(_bare_tree(name, "bind", f"{MOUNTS}/{stack}/{name}") for name in names))

    def dumps(self, stack: str) -> tuple[DumpEntry, ...]:
        """The stack's dumps in a data backup; told from files where there is no index."""
        entry = self.index.stacks.get(stack) if self.index else None
        if entry:
            return entry.dumps
        names = artifact_files.files(self.path, f"{DUMPS}/{stack}")
        return tuple(DumpEntry(name.partition(".")[0], "database", f"{DUMPS}/{stack}/{name}") for name in names)

    def place(self, path: str) -> Path:
        """The place of what the index calls `path`; the index may have been written by anyone.

        Raises:
            ValueError: the path is none of a backup's.
            RefusedError: a link is on the way to it, or in its place.
        """
        return backup_paths.place(self.path, path)

    def incomplete(self, stack: str) -> str:
        """Why the backup may lack trees of `stack`, or ""."""
        entry = self.index.stacks.get(stack) if self.index else None
        return entry.incomplete if entry else ""

    def at(self, stack: str) -> datetime:
        """When `stack`'s data stood still for this backup; the date in the name where nothing better is known."""
        entry = self.index.stacks.get(stack) if self.index else None
        return (entry and _instant(entry.at)) or self.name.when


def catalog(settings: Settings, now: datetime) -> list[Artifact]:
    """Every finished artifact, newest first; a replaced day comes after the one that replaced it.

    What seems to be made after `now` comes last: a clock that was wrong has dated it.

    Raises:
        RefusedError: BACKUP_ROOT cannot be read.
    """
    require(settings)
    found = []
    for entry in os.listdir(settings.backup_root):
        name = parse_name(entry, settings.zone)
        if name and (artifact := _artifact(name, settings.backup_root / entry)):
            found.append(artifact)

    def age(one: Artifact) -> tuple[bool, datetime, bool, str]:
        return one.made_at <= now + _AHEAD, one.made_at, not one.replaced, one.name.name

    return sorted(found, key=age, reverse=True)


def find(artifacts: Sequence[Artifact], name: str) -> Artifact:
    """The artifact called `name`, or a data backup by its date (`2026-11-03`).

    Raises:
        SettingsError: there is none; the hint names the nearest ones.
    """
    for artifact in artifacts:
        if artifact.name.name in (name, f"data-{name}"):
            return artifact
    names = [artifact.name.name for artifact in artifacts]
    near = difflib.get_close_matches(name, names, n=3) or names[:3]
    raise SettingsError(
        f"there is no backup called {display(name)}",
        hint=f"nearest: {', '.join(near)}" if near else "BACKUP_ROOT holds no backups",
    )


def data_with(artifacts: Sequence[Artifact], stack: str) -> list[Artifact]:
    """The data backups that hold `stack`, newest first, replaced ones too."""
    return [a for a in artifacts if a.kind is ArtifactKind.DATA and stack in a.stacks]


def newest(artifacts: Sequence[Artifact], kind: ArtifactKind) -> Artifact | None:
    return next((a for a in artifacts if a.kind is kind and not a.replaced), None)


def _artifact(name: ArtifactName, path: Path) -> Artifact | None:
    """None where the name is not what it says (a link, a directory called .tar.gz), or is being pruned just now."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    if name.kind is ArtifactKind.DATA:
        return _data_artifact(name, path) if stat.S_ISDIR(status.st_mode) else None
    return Artifact(name, path, name.when, status.st_size) if stat.S_ISREG(status.st_mode) else None


def _data_artifact(name: ArtifactName, path: Path) -> Artifact:
    try:
        text = small_files.read(artifact_files.real(path) / INDEX, records.LARGEST_BYTES, follow=False).decode("utf-8")
    except FileNotFoundError:
        return Artifact(name, path, name.when, stacks=_stacks_by_directory(path))
    except (OSError, ValueError, RefusedError) as error:
        return Artifact(name, path, name.when, stacks=_stacks_by_directory(path), problem=f"{INDEX}: {error}")
    try:
        index = parse_index(text)
    except NewerRecordError as error:
        stacks = _stacks_by_directory(path)
        return Artifact(name, path, name.when, stacks=stacks, problem=f"{INDEX}: {error}", newer=True)
    except ValueError as error:
        return Artifact(name, path, name.when, stacks=_stacks_by_directory(path), problem=str(error))
    size = sum(tree.bytes for entry in index.stacks.values() for tree in entry.trees)
    return Artifact(name, path, _instant(index.created_at) or name.when, size, index, tuple(sorted(index.stacks)))


def _bare_tree(mount_name: str, kind: str, path: str) -> TreeEntry:
    return TreeEntry(mount_name, kind, path, source="", real_path="", volume=None, snapshot=False, files=0, bytes=0)


def _stacks_by_directory(path: Path) -> tuple[str, ...]:
    names: set[str] = set()
    for below in ("", MOUNTS, DUMPS):
        names.update(artifact_files.directories(path, below))
    return tuple(sorted(names - RESERVED_STACK_NAMES))


def _instant(text: str) -> datetime | None:
    """An ISO 8601 instant; None when it is not one, or says no offset and so could be hours off."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return instant if instant.tzinfo else None
