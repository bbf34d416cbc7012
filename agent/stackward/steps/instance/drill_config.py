"""The configuration of a drill: a stack's directory as a backup holds it, and what its files name elsewhere, with secrets.

It lies below a directory that stands for `/`, so that a path like `../shared/app.env` leads where it leads in production.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from stackward.config import Settings
from stackward.core.artifacts import ArtifactKind
from stackward.core.errors import DamageError
from stackward.core.model import Stack, display
from stackward.core.staging_facts import within
from stackward.steps import config_archives, verified_copy
from stackward.steps.catalog import Artifact
from stackward.steps.config_archives import Opened
from stackward.steps.instance.drill_source import NotDerivableError
from stackward.tools import archive, beneath, filesystem, host_files, unpack
from stackward.tools.beneath import LinkOnTheWayError
from stackward.tools.compose_files import dependencies
from stackward.tools.host_files import HostFiles

EMPTY = "empty"  # beside what was unpacked: what begins empty
_ROUNDS = 10  # what is named by what was named


@dataclass(frozen=True, slots=True)
class Mirror:
    """A directory that stands for `/`. Its `docker_root` is a real path of production, as all that goes in and out."""

    root: str
    docker_root: str

    def place(self, original: str) -> str:
        return os.path.normpath(f"{self.root}/{original}")

    def original(self, path: str) -> str:
        """The path in production of one that is in here; any other is its own."""
        return "/" + os.path.relpath(path, self.root) if path != self.root and within(path, self.root) else path

    def said(self, text: str) -> str:
        """A message about files in here, as one about production's."""
        return text.replace(display(self.root) + "/", "/").replace(self.root + "/", "/")


class _Archive:
    """A tarball, or a capsule; it is looked into when something is first asked of it.

    What is asked for is unpacked into a directory of its own below `home`, and moved from there: what one archive holds leads
    nothing of another one, or of an earlier question, astray.
    """

    def __init__(self, opened: Opened, identity: Path, home: Path, room_bytes: int) -> None:
        self._opened = opened
        self._identity = identity
        self._home = home
        self._room_bytes = room_bytes
        self._names: frozenset[bytes] = frozenset()

    def extract(self, base: Path, wanted: bytes) -> list[str]:
        """What is called so or lies in it, and the directories above; returns what was left out, in words."""
        if not self._names:
            with self._opened.plain(self._identity) as source:
                self._names = frozenset(archive.plain_name(member.name) for member in archive.members(source))
        found = {path for path in self._names if path == wanted or path.startswith(wanted + b"/")}
        if not found:
            return []
        found |= {path for path in self._names if path and wanted.startswith(path + b"/")}
        alone = self._home / "archive"
        beneath.make_directories(alone)
        with self._opened.plain(self._identity) as source:
            left_out = unpack.unpack(source, alone, found.__contains__, most_bytes=self._room_bytes)
        left_out += unpack.merge(alone, base)
        filesystem.remove_tree(alone)
        return [f"{display(os.fsdecode(one.name))} is not in the drill: {one.why}" for one in left_out]


@dataclass(slots=True)
class Unpacked:
    """What was unpacked so far. `directory` is the stack's; `warnings` say what is otherwise than in the backup."""

    mirror: Mirror
    directory: Path
    stack: Stack
    name: str
    seen: HostFiles
    tarball: _Archive
    capsule: _Archive | None
    warnings: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)

    def take(self, original: str) -> bool:
        """Unpack a path of production with all that is in it. Returns whether it is there then."""
        root = self.mirror.docker_root
        if original not in self.asked and within(original, root) and original != root:
            base, wanted = Path(self.mirror.place(root)), os.fsencode(os.path.relpath(original, root))
            self.warnings += self.tarball.extract(base, wanted)
            if self.capsule is not None and (self.stack.secret_files or wanted != os.fsencode(self.stack.name)):
                self.warnings += self.capsule.extract(base, wanted)
        self.asked.add(original)
        return os.path.lexists(self.mirror.place(original))

    def take_named_file(self, original: str) -> None:
        """As `take`; one that the backup does not hold is copied from production as it is now, which is said."""
        if not self.take(original) and self.copy_of_now(original):
            self.warnings.append(f"{display(original)} is production's of now: {self.name} does not hold it")

    def copy_of_now(self, original: str) -> bool:
        """Returns whether there is such a file. Through a link that leads out of the copy nothing is written."""
        place = self.mirror.place(original)
        if why := self.seen.refusal(Path(original)):
            self.warnings.append(why)
            return False
        if not os.path.isfile(original) or not within(os.path.realpath(place), self.mirror.root):
            return False
        try:
            beneath.make_directories(os.path.dirname(place), mode=0o755)
            filesystem.remove(Path(place))
            verified_copy.copy(Path(os.path.realpath(original)), Path(place))
        except (LinkOnTheWayError, OSError) as error:
            self.warnings.append(f"{display(original)} cannot be copied: {getattr(error, 'message', error)}")
            return False
        return True


def place(
    settings: Settings,
    artifacts: Sequence[Artifact],
    tarball: Artifact,
    stack: Stack,
    home: Path,
    held: ExitStack,
    *,
    unsigned: bool = False,
) -> Unpacked:
    """Unpack the stack's directory with its secrets, and the files that its compose files name elsewhere.

    The archives stay open until `held` is left. What others have made decides what is run, so the tarball must be signed by
    this appliance (or a trusted signer), unless `unsigned`; so must the capsule, without which production's secrets are used.

    Raises:
        NotDerivableError: the config backup does not hold the stack, or is not signed.
        DamageError, StackwardError: an archive is damaged.
    """
    docker_root = os.path.realpath(settings.docker_root)
    mirror = Mirror(os.path.realpath(home / "root"), docker_root)
    home.mkdir(parents=True, mode=0o700)
    os.makedirs(mirror.place(docker_root))
    original = f"{docker_root}/{stack.name}"
    opened = held.enter_context(config_archives.opened(settings, tarball))
    if not opened.signer.trusted and not unsigned:
        hint = f"the next one will be; or `stackward drill {display(stack.name)} --unsigned` trusts it as it is"
        raise NotDerivableError(f"{tarball.name.name} is signed by {opened.signer}, not by this appliance: {hint}")
    _require_sound(opened)
    room = max(0, filesystem.free_bytes(home) - settings.minimum_free_bytes)
    identity = settings.config_dir / config_archives.IDENTITY
    secrets, why = _capsule(settings, artifacts, tarball, held, unsigned=unsigned)
    found = Unpacked(
        mirror,
        Path(mirror.place(original)),
        stack,
        tarball.name.name,
        host_files.here(settings, opened=(home,)),
        _Archive(opened, identity, home, room),
        _Archive(secrets, identity, home, room) if secrets is not None else None,
    )
    if not found.take(original):
        raise NotDerivableError(f"{found.name} does not hold {display(stack.name)}")
    if found.directory.is_symlink():
        raise NotDerivableError(f"{display(original)} is a link: {found.name} does not hold what it leads to")
    if why and stack.secret_files:
        _take_secrets_of_now(found)
        found.warnings.append(f"its secrets are production's of now, not the backup's: {why}")
    for _ in range(_ROUNDS):
        if not _take_named(found):
            break
    for path in map(str, dependencies(found.directory, seen=found.seen).paths):
        if within(path, docker_root) and not within(path, mirror.root) and os.path.isfile(path):
            found.warnings.append(f"{display(path)} is production's of now: it is named by its absolute path")
    return found


def _take_named(found: Unpacked) -> bool:
    """Get what is named now and was not before; whether there was anything."""
    named = {os.path.normpath(path) for path in dependencies(found.directory, seen=found.seen).paths}
    elsewhere = {path for path in named if not within(path, str(found.directory)) and within(path, found.mirror.root)}
    new = {found.mirror.original(path) for path in elsewhere} - found.asked
    for original in sorted(new):
        found.take_named_file(original)
    return bool(new)


def _take_secrets_of_now(found: Unpacked) -> None:
    for secret in map(str, found.stack.secret_files):
        if within(secret, found.mirror.docker_root):
            found.copy_of_now(secret)


def _capsule(
    settings: Settings, artifacts: Sequence[Artifact], tarball: Artifact, held: ExitStack, *, unsigned: bool
) -> tuple[Opened | None, str]:
    """The one that belongs to the tarball, or why it cannot be had."""
    made = [a for a in artifacts if a.kind is ArtifactKind.SECRETS and a.name.when <= tarball.name.when]
    identity = settings.config_dir / config_archives.IDENTITY
    if not made:
        return None, "there is no secrets capsule"
    if not identity.is_file():
        return None, f"{display(identity)} is not here to open the capsule"
    newest = max(made, key=lambda artifact: artifact.name.when)
    opened = held.enter_context(config_archives.opened(settings, newest))
    if not opened.signer.trusted and not unsigned:
        return None, f"{newest.name.name} is signed by {opened.signer}, not by this appliance"
    _require_sound(opened)
    return opened, ""


def _require_sound(opened: Opened) -> None:
    if opened.damage:
        raise DamageError(
            f"{opened.artifact.name.name} is damaged: {opened.damage}", hint="drill an older one with --from"
        )
