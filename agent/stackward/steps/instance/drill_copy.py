"""A stack as a backup holds it, laid out so that an instance can run on it: data, configuration, and secrets.

The data is a writable snapshot of the backup on Btrfs, else a copy. It lies in BACKUP_ROOT under a name that no listing
takes for a backup; whatever is left of a killed drill goes with its undo record, or with the next backup.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import IO

from stackward.config import Settings
from stackward.core.artifacts import INCOMING_PREFIX, ArtifactKind
from stackward.core.errors import StackwardError
from stackward.core.model import Stack, TreeKind, display
from stackward.core.staging import Move
from stackward.core.units import format_bytes
from stackward.steps.catalog import Artifact
from stackward.tools import age, archive, btrfs, compose, filesystem, process

IDENTITY = "age.key"
_DAY = timedelta(days=1)


class NotDerivableError(StackwardError):
    """There can be no drill of this stack; the message says why."""


@dataclass(frozen=True, slots=True)
class Copy:
    """`stack` is the stack as its backed-up compose file has it, `moves` lead from production into the copy."""

    stack: Stack
    moves: tuple[Move, ...]
    volumes: dict[str, str]
    warnings: tuple[str, ...]


def data_place(settings: Settings, run_id: str, number: int) -> Path:
    return Path(os.path.realpath(settings.backup_root)) / f"{INCOMING_PREFIX}drill-{run_id}-{number}"


def no_room(settings: Settings, artifact: Artifact, stack: str) -> str:
    """Why the stack's data cannot be copied beside the backup, or ""; a snapshot needs no room."""
    if filesystem.is_subvolume(artifact.path):
        return ""
    needed = sum(tree.bytes for tree in artifact.trees(stack)) + settings.minimum_free_bytes
    if (free := filesystem.free_bytes(settings.backup_root)) >= needed:
        return ""
    return f"a copy needs {format_bytes(needed)} in BACKUP_ROOT, where {format_bytes(free)} are free; on Btrfs it needs none"


def place_data(settings: Settings, artifact: Artifact, stack: str, place: Path) -> None:
    """Make the copy of the stack's data.

    Raises:
        NotDerivableError: there is no room.
        CommandError, OSError: it could not be made.
    """
    if filesystem.is_subvolume(artifact.path):
        btrfs.snapshot(artifact.path, place, read_only=False)
        return
    if why := no_room(settings, artifact, stack):
        raise NotDerivableError(why)
    place.mkdir(mode=0o700)
    for tree in artifact.trees(stack):
        source, target = artifact.path / tree.path, place / tree.path
        if source.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            process.run(["cp", "--archive", "--reflink=auto", "--no-target-directory", "--", source, target])


def place_config(
    settings: Settings, artifacts: Sequence[Artifact], data: Artifact, stack: Stack, home: Path
) -> list[str]:
    """Unpack the stack's directory and secrets of about the time of the data. Returns what is otherwise than wanted.

    Raises:
        NotDerivableError: no config backup holds the stack.
        StackwardError: an archive is damaged.
    """
    tarball = _of_about(artifacts, ArtifactKind.CONFIG, data, stack.name)
    prefix = os.fsencode(stack.name)
    home.mkdir(parents=True, mode=0o700)
    with open(tarball.path, "rb") as file:
        members = _members_of(file, prefix)
    if not members:
        raise NotDerivableError(f"{tarball.name.name} does not hold {display(stack.name)}")
    with open(tarball.path, "rb") as file:
        archive.extract(file, home, members)
    if not stack.secret_files:
        return []
    return _place_secrets(settings, artifacts, tarball, stack, home)


def read(data: Path, home: Path, artifact: Artifact, stack: Stack, warnings: Sequence[str]) -> Copy:
    """Resolve the compose file that was unpacked, and say where the copy has what it names.

    Raises:
        NotDerivableError: Compose cannot read it.
    """
    directory = home / stack.name
    try:
        model = compose.resolve(directory)
    except compose.ComposeError as error:
        raise NotDerivableError(f"Compose cannot read its backed-up compose file: {error.message}") from error
    moves = [Move(str(directory), str(directory))]
    moves += [Move(old, str(directory)) for old in {str(stack.directory), os.path.realpath(stack.directory)}]
    volumes = {}
    for tree in artifact.trees(stack.name):
        copy = str(data / tree.path)
        olds = {old for old in (tree.source, tree.real_path) if old}
        if tree.kind == TreeKind.DATA:
            olds |= {str(stack.directory / "data"), os.path.realpath(stack.directory / "data")}
        here = [directory / os.path.relpath(old, stack.directory) for old in olds if _is_below(old, stack.directory)]
        moves += [Move(old, copy) for old in {*olds, *map(str, here), *map(os.path.realpath, here)}]
        if tree.volume:
            volumes[tree.volume] = tree.real_path or tree.source
    unread = replace(stack, directory=directory, raw=model, project=str(model.get("name") or stack.project), trees=())
    return Copy(unread, tuple(moves), volumes, tuple(warnings))


def _of_about(artifacts: Sequence[Artifact], kind: ArtifactKind, data: Artifact, stack: str) -> Artifact:
    """The newest that is not more than a day younger than the data, or else the oldest there is."""
    found = [one for one in artifacts if one.kind is kind]
    if not found:
        raise NotDerivableError("there is no config backup: `stackward backup --config` makes one")
    at = data.at(stack) + _DAY
    return next((one for one in found if one.made_at <= at), found[-1])


def _place_secrets(
    settings: Settings, artifacts: Sequence[Artifact], tarball: Artifact, stack: Stack, home: Path
) -> list[str]:
    """From the capsule that belongs to the tarball; where this host cannot open it, production's own of now."""
    capsules = [a for a in artifacts if a.kind is ArtifactKind.SECRETS and a.name.when <= tarball.name.when]
    identity = settings.config_dir / IDENTITY
    why = "there is no secrets capsule" if not capsules else f"{display(identity)} is not here to open the capsule"
    if capsules and identity.is_file():
        capsule = max(capsules, key=lambda artifact: artifact.name.when)
        with _opened(capsule, identity) as plain:
            members = _members_of(plain, os.fsencode(stack.name))
        with _opened(capsule, identity) as plain:
            archive.extract(plain, home, members)
        return []
    for secret in stack.secret_files:
        if _is_below(str(secret), stack.directory) and secret.is_file():
            target = home / stack.name / os.path.relpath(secret, stack.directory)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(secret, target)
    return [f"its secrets are production's of now, not the backup's: {why}"]


def _members_of(source: IO[bytes], prefix: bytes) -> list[bytes]:
    names = [member.name for member in archive.members(source)]
    return [name for name in names if name.removeprefix(b"./").rstrip(b"/").split(b"/")[0] == prefix]


@contextmanager
def _opened(capsule: Artifact, identity: Path) -> Iterator[IO[bytes]]:
    with open(capsule.path, "rb") as file, age.decrypting(identity, file) as plain:
        yield plain


def _is_below(path: str, directory: Path) -> bool:
    return Path(path) != directory and directory in Path(path).parents
