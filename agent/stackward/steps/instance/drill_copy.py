"""A stack as backups hold it, laid out so that an instance can run on it: what of production is found where.

The data is a writable snapshot of the backup on Btrfs, else a copy. It lies in BACKUP_ROOT under a name that no listing
takes for a backup; whatever is left of a killed drill goes with its undo record, or with the next backup.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stackward.config import Settings
from stackward.core.artifacts import incoming_name
from stackward.core.model import Stack, Tree, TreeKind, display
from stackward.core.progress import Progress, Silent
from stackward.core.staging import Move, Refusal
from stackward.core.staging_facts import within
from stackward.core.units import format_bytes
from stackward.steps.appliance_id import owner
from stackward.steps.catalog import Artifact
from stackward.steps.instance import staging
from stackward.steps.instance.drill_config import EMPTY, Unpacked
from stackward.steps.instance.drill_source import NotDerivableError, Source
from stackward.steps.verification import Fault, check, checksums
from stackward.steps.verified_copy import Checksums, Copier
from stackward.tools import beneath, btrfs, compose, filesystem


@dataclass(frozen=True, slots=True)
class Copy:
    """`stack` is the stack as its backed-up compose file has it, `moves` lead from production into the copy.

    `empty` names the volumes that may begin empty.
    """

    stack: Stack
    moves: tuple[Move, ...]
    volumes: dict[str, str]
    empty: tuple[str, ...]
    warnings: tuple[str, ...]


def data_place(settings: Settings, run_id: str, number: int) -> Path:
    name = incoming_name(owner(settings), f"drill-{run_id}-{number}")
    return Path(os.path.realpath(settings.backup_root)) / name


def no_room(settings: Settings, source: Source, stack: str) -> str:
    """Why the stack's data cannot be copied beside the backup, or ""; a snapshot needs no room."""
    if source.data is None or filesystem.is_subvolume(source.data.path):
        return ""
    needed = sum(tree.bytes for tree in source.trees(stack)) + settings.minimum_free_bytes
    if (free := filesystem.free_bytes(settings.backup_root)) >= needed:
        return ""
    return f"a copy needs {format_bytes(needed)} in BACKUP_ROOT, where {format_bytes(free)} are free; on Btrfs it needs none"


def place_data(
    settings: Settings,
    source: Source,
    stack: str,
    place: Path,
    *,
    proven: bool = False,
    progress: Progress | None = None,
) -> list[str]:
    """Make the copy of the stack's data, and check each file; returns what is damaged, which the copy does not hold.

    A copy is checked while it is made. A snapshot needs no copying: unless the backup is `proven` (it was verified since it
    was made), its files are read once.

    Raises:
        NotDerivableError: there is no room.
        RefusedError: a link is in the place of one of its trees.
        CommandError, OSError: it could not be made.
    """
    if source.data is None:
        return []
    originals = {tree.path: source.data.place(tree.path) for tree in source.trees(stack)}
    if filesystem.is_subvolume(source.data.path):
        btrfs.snapshot(source.data.path, place, read_only=False)
        return [] if proven else _without_damage(source.data, list(originals), place, progress or Silent())
    if why := no_room(settings, source, stack):
        raise NotDerivableError(why)
    place.mkdir(mode=0o700)
    copier = Copier()
    for path, original in originals.items():
        if original.is_dir():
            lines = checksums(source.data, os.fsencode(path))
            beneath.make_directories((place / path).parent)
            copier.copy(
                original, place / path, Checksums(lines) if lines is not None else None, called=os.fsencode(path)
            )
    return [f"{display(os.fsdecode(one.path))} {one.why}" for one in copier.result.left_out]


def _without_damage(backup: Artifact, paths: Sequence[str], place: Path, progress: Progress) -> list[str]:
    """Remove from the snapshot at `place` what the backup's checksums do not vouch for; returns what is wrong, in words."""
    report = check(backup, progress, paths)
    for finding in report.findings:
        if finding.fault is not Fault.MISSING:
            filesystem.remove(place / finding.path)
    told = [f"{display(finding.path)} is {finding.fault}" for finding in report.findings]
    return told + ([f"{report.damaged - len(told)} more"] if report.damaged > len(told) else [])


def read(data: Path, unpacked: Unpacked, source: Source) -> Copy:
    """Resolve the compose file that was unpacked, and say where the copy has what it names.

    Raises:
        NotDerivableError: Compose cannot read it.
    """
    stack, mirror = unpacked.stack, unpacked.mirror
    try:
        model = compose.resolve(unpacked.directory, seen=unpacked.seen)
    except compose.ComposeError as error:
        why = mirror.said(error.message)
        raise NotDerivableError(f"Compose cannot read its backed-up compose file: {why}") from error
    own = f"{mirror.docker_root}/{stack.name}"
    copies = {old: str(unpacked.directory) for old in (own, str(stack.directory), os.path.realpath(stack.directory))}
    volumes = {}
    for tree in source.trees(stack.name):
        olds = {old for old in (tree.source, tree.real_path) if old}
        if tree.kind == TreeKind.DATA:
            olds |= {str(stack.directory / "data"), os.path.realpath(stack.directory / "data")}
        copies |= dict.fromkeys(olds, str(data / tree.path))
        if tree.volume:
            volumes[tree.volume] = tree.real_path or tree.source
    skipped = [tree for tree in stack.trees if tree.mount_name in staging.uncopied([tree])]
    copies |= dict(_empty_places(unpacked, skipped))
    outside = _outside(model, unpacked, copies)
    copies |= outside.copies
    for holder, key in _holders(model):
        holder[key] = outside.of_now.get(str(holder[key]), holder[key])
    of_now = [path for path in outside.of_now.values() if within(path, mirror.docker_root) and os.path.lexists(path)]
    warnings = [f"{display(path)} is production's of now: {unpacked.name} does not hold it" for path in of_now]
    here = {path: copy for old, copy in copies.items() for path in _in_copy(unpacked, old)}
    moves = [Move(mirror.root, mirror.root), *(Move(old, copy) for old, copy in {**copies, **here}.items())]
    project = str(model.get("name") or stack.project)
    unread = replace(stack, directory=unpacked.directory, raw=model, project=project, trees=())
    empty = tuple(name for tree in skipped for name in (tree.mount_name, tree.volume) if name)
    return Copy(unread, tuple(moves), volumes, empty, tuple(dict.fromkeys([*unpacked.warnings, *warnings])))


def told(refusals: Iterable[Refusal], data: Path, unpacked: Unpacked, source: Source) -> str:
    """Why no instance can be derived, in the words of production: paths of the copy mean nothing to anybody."""
    backups = f"{source.name} with {unpacked.name}" if source.data else unpacked.name
    found = []
    for refusal in refusals:
        text = str(refusal).replace(display(data), display(source.data.path) if source.data else "")
        if unpacked.mirror.root in text:
            text = text.replace(" is not there", f" is not in {backups}")
        found.append(unpacked.mirror.said(text))
    return "; ".join(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class _Outside:
    """What a model names outside the stack's directory: `copies` of it, and by its path in the copy what is of now."""

    copies: dict[str, str]
    of_now: dict[str, str]


def _outside(model: dict[str, Any], unpacked: Unpacked, copies: Mapping[str, str]) -> _Outside:
    """Unpack it, but for what is in `copies`. What no backup holds is production's, as `staging` takes it."""
    mirror = unpacked.mirror
    own = f"{mirror.docker_root}/{unpacked.stack.name}"
    found = _Outside({}, {})
    for holder, key in _holders(model):
        path = str(holder[key])
        original = mirror.original(path)
        leads_to = mirror.original(os.path.realpath(path))  # by a link in the copy
        for one in dict.fromkeys((original, leads_to)):
            if _is_in(one, copies, found.copies) or within(mirror.docker_root, one):
                continue
            if within(one, mirror.docker_root) and unpacked.take(one) and not _is_hollow(mirror.place(one), one):
                found.copies[one] = mirror.place(one)
        if original != path and not within(original, own) and not _is_in(original, copies, found.copies):
            found.of_now[path] = original
    return found


def _is_in(path: str, *copies: Mapping[str, str]) -> bool:
    return any(within(path, old) for one in copies for old in one)


def _is_hollow(place: str, original: str) -> bool:
    """A directory of data, of which backups of configuration hold no more than its owner and mode."""
    if os.path.islink(place) or not os.path.isdir(place) or os.listdir(place):
        return False
    return os.path.isdir(original) and bool(os.listdir(original))


def _holders(model: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Where the model names a path of the host."""
    for service in (model.get("services") or {}).values():
        for mount in service.get("volumes") or []:
            if mount.get("type") == "bind" and mount.get("source"):
                yield mount, "source"
    for section in ("secrets", "configs"):
        for declared in (model.get(section) or {}).values():
            if (declared or {}).get("file"):
                yield declared, "file"


def _in_copy(unpacked: Unpacked, old: str) -> Iterator[str]:
    """The paths by which the unpacked compose file calls what is at `old` in production."""
    within_stack = os.path.relpath(old, unpacked.stack.directory)
    for path in (unpacked.mirror.place(old), os.path.normpath(unpacked.directory / within_stack)):
        if within(path, unpacked.mirror.root) and path != str(unpacked.directory):
            yield path
            yield os.path.realpath(path)


def _empty_places(unpacked: Unpacked, skipped: Iterable[Tree]) -> Iterator[tuple[str, str]]:
    """An empty directory for each that backups leave out on purpose, owned as production's is. Volumes are made by Docker."""
    for number, tree in enumerate(tree for tree in skipped if tree.volume is None):
        place = Path(unpacked.mirror.root).with_name(EMPTY) / str(number)
        if tree.path.is_file():
            continue
        place.mkdir(parents=True)
        if tree.path.is_dir():
            found = tree.path.stat()
            os.chown(place, found.st_uid, found.st_gid)
            place.chmod(found.st_mode & 0o7777)
        yield from ((str(tree.source), str(place)), (str(tree.path), str(place)))
