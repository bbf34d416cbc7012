"""A stack's trees: what its services mount, what of it a backup covers, and why it does not cover the rest."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from stackward.core.model import Container, Policy, Problem, Tree, TreeKind, display
from stackward.stacks import naming
from stackward.tools.compose_files import NAMES, is_file

if TYPE_CHECKING:
    from stackward.stacks.places import Host
    from stackward.tools.docker import VolumeInfo

DATA = "data"
SINGLE_FILE_OUTSIDE = "a single file outside the stack's directory: in no backup"
_REMOTE_VOLUMES = frozenset({"nfs", "nfs4", "cifs", "smb3"})


@dataclass(slots=True)
class _Found:
    """A directory that is mounted somewhere in the stack; two mounts of the same one are one."""

    kind: TreeKind
    source: Path
    path: Path
    name: str
    writable: bool = False
    services: set[str] = field(default_factory=set)
    volume: str | None = None
    driver_options: bool = False
    aliases: set[str] = field(default_factory=set)
    reason: str = ""
    remote: bool = False


@dataclass(frozen=True, slots=True)
class Stage:
    """What the trees of one stack are told from."""

    stack: str
    directory: Path
    host: Host
    volumes: Mapping[str, VolumeInfo]


def find(
    stage: Stage, model: Mapping[str, Any], containers: Sequence[Container], policy: Policy
) -> tuple[tuple[Tree, ...], tuple[Problem, ...]]:
    """The trees in the order: data, volumes, binds. A tree within another covered one is the outer one's."""
    found: dict[Path, _Found] = {}
    _add_data(stage, found)
    for service, mount in _mounts(model):
        match mount.get("type"):
            case "bind" if mount.get("source"):
                _add_bind(stage, found, service, mount)
            case "volume" if mount.get("source"):
                _add_volume(stage, found, service, mount, model)
    _add_anonymous(stage, found, containers, _named(model))
    used: set[str] = set()
    order = (TreeKind.DATA, TreeKind.VOLUME, TreeKind.BIND)
    ordered = sorted(found.values(), key=lambda one: (order.index(one.kind), os.fsencode(one.source)))
    judged = [_judged(stage, one, policy, used) for one in ordered]
    named: dict[str, Tree] = {}
    for tree in _outermost(judged):
        name = naming.unique(tree.mount_name, tree.source, named)
        named[name] = replace(tree, mount_name=name)
    return tuple(named.values()), tuple(_unused_skips(stage, policy, used))


def _mounts(model: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    services = model.get("services") or {}
    return [(name, mount) for name in sorted(services) for mount in services[name].get("volumes") or []]


def _named(model: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(_volume_name(model, key) for key in model.get("volumes") or {})


def _volume_name(model: Mapping[str, Any], key: str) -> str:
    declared = (model.get("volumes") or {}).get(key) or {}
    if name := declared.get("name"):
        return str(name)
    return key if declared.get("external") else f"{model.get('name', '')}_{key}"


def _add(found: dict[Path, _Found], one: _Found) -> _Found:
    return found.setdefault(one.path, one)


def _add_data(stage: Stage, found: dict[Path, _Found]) -> None:
    source = stage.directory / DATA
    if source.is_dir():
        _add(found, _Found(TreeKind.DATA, source, _real(source), DATA, writable=True, aliases={DATA}))


def _add_bind(stage: Stage, found: dict[Path, _Found], service: str, mount: Mapping[str, Any]) -> None:
    source = Path(os.path.normpath(str(mount["source"])))
    path = _real(source)
    relative = _relative(source, stage.directory)
    one = _add(found, _Found(TreeKind.BIND, source, path, naming.slug(relative or source)))
    one.services.add(service)
    one.writable |= not mount.get("read_only")
    one.aliases |= {str(source), str(path)}


def _add_volume(
    stage: Stage, found: dict[Path, _Found], service: str, mount: Mapping[str, Any], model: Mapping[str, Any]
) -> None:
    key = str(mount["source"])
    name = _volume_name(model, key)
    declared = (model.get("volumes") or {}).get(key) or {}
    info = stage.volumes.get(name)
    source = info.mountpoint if info else stage.host.settings.docker_volumes / name / "_data"
    options = info.options if info else dict(declared.get("driver_opts") or {})
    driver = info.driver if info else str(declared.get("driver") or "local")
    path, held, reason, remote = _where(stage, source, driver, options)
    one = _add(found, _Found(TreeKind.VOLUME, source, path, name, volume=name, driver_options=held))
    one.reason, one.remote = one.reason or reason, one.remote or remote
    one.services.add(service)
    one.writable |= not mount.get("read_only")
    one.aliases |= {key, name}


def _where(stage: Stage, source: Path, driver: str, options: Mapping[str, str]) -> tuple[Path, bool, str, bool]:
    """Of a volume: its real path, whether it must be held mounted, why it cannot be covered, and if that is remoteness."""
    if driver != "local":
        return _real(source), bool(options), f"volume of the driver {driver}, not a local one", True
    kind = options.get("type", "")
    if kind == "tmpfs":
        return _real(source), True, "in memory only (tmpfs)", False
    if kind in _REMOTE_VOLUMES:
        return _real(source), True, f"on a remote file system ({kind}): back it up where it lives", True
    device = Path(options.get("device", ""))
    if "bind" in options.get("o", "").split(",") and device.is_absolute() and stage.host.is_visible(_real(device)):
        return _real(device), False, "", False  # the same directory, without the detour over a mount
    return _real(source), bool(options), "", False


def _add_anonymous(
    stage: Stage, found: dict[Path, _Found], containers: Sequence[Container], named: frozenset[str]
) -> None:
    """Volumes without a name in the compose file, also those that an image asks for: only containers know them."""
    for container in containers:
        for mount in container.mounts if not container.one_off else ():
            info = stage.volumes.get(mount.name)
            if mount.kind != "volume" or mount.name in named or info is None or info.options:
                continue
            if any(one.volume == mount.name for one in found.values()):
                continue
            name = naming.slug(PurePath(container.service, *PurePath(mount.target).parts[1:]))
            one = _add(found, _Found(TreeKind.VOLUME, info.mountpoint, _real(info.mountpoint), name, volume=mount.name))
            one.services.add(container.service)
            one.writable |= mount.writable
            one.aliases |= {mount.name, mount.target}


def _judged(stage: Stage, one: _Found, policy: Policy, used: set[str]) -> Tree:
    skipped = [entry for entry in policy.skip if _is_named(stage, entry, one)]
    used.update(skipped)
    reason, remote = (one.reason, one.remote) if one.reason else _uncoverable(stage, one)
    if skipped:
        reason = f"skipped on purpose (stackward.backup.skip: {display(skipped[0])})"
    elif policy.trees == "all":
        reason = "" if remote and stage.host.is_visible(one.path) else reason
    elif not reason and policy.trees == "data" and one.kind is not TreeKind.DATA:
        reason = "only `data` is asked for (stackward.backup.trees: data)"
    elif not reason and not one.writable:
        reason = "read-only for the stack"
    return Tree(
        stack=stage.stack,
        mount_name=one.name,
        kind=one.kind,
        source=one.source,
        path=one.path,
        writable=one.writable,
        services=tuple(sorted(one.services)),
        volume=one.volume,
        driver_options=one.driver_options,
        covered=not reason,
        reason=reason,
    )


def _uncoverable(stage: Stage, one: _Found) -> tuple[str, bool]:
    """Why the directory can be no part of a backup, or "", and whether that is only for its remoteness."""
    if one.path == _real(stage.directory):
        return "the stack's own directory: the config backup has it", False
    if (other := foreign(one.source, one.path, stage.directory)) is not None:
        return f"a link leads to {display(one.path)}, which is {display(other.name)}'s", False
    place = stage.host.judge(one.source, one.path)
    if not place.reason and one.kind is TreeKind.BIND and os.path.lexists(one.path) and not one.path.is_dir():
        return _single_file(stage, one.source), False
    return place.reason, place.remote


def foreign(source: Path, path: Path, directory: Path) -> Path | None:
    """The other stack's directory that a path of the stack in `directory` leads into by a link; None if it does not.

    A container that can write to its stack's directory can put such a link there.
    """
    stacks = _real(directory.parent)
    if _relative(source, directory) is None or stacks not in path.parents:
        return None
    other = stacks / path.relative_to(stacks).parts[0]
    if other == _real(directory) or not any(is_file(other / name) for name in NAMES):
        return None
    return other


def _outermost(trees: Sequence[Tree]) -> list[Tree]:
    """Drop what lies within another covered tree; the outer one inherits who mounts it and who writes to it."""
    kept = []
    for tree in trees:
        if tree.covered and any(_holds(other, tree) for other in trees):
            continue
        inner = [other for other in trees if other.covered and _holds(tree, other)]
        services = {*tree.services, *(service for other in inner for service in other.services)}
        writable = tree.writable or any(other.writable for other in inner)
        kept.append(replace(tree, services=tuple(sorted(services)), writable=writable))
    return kept


def _holds(outer: Tree, inner: Tree) -> bool:
    return outer.covered and outer.path in inner.path.parents


def _single_file(stage: Stage, source: Path) -> str:
    if _relative(source, stage.directory) is not None:
        return "a single file: the config backup has it"
    return SINGLE_FILE_OUTSIDE


def _is_named(stage: Stage, entry: str, one: _Found) -> bool:
    """By its name, a volume's name, its path (absolute, or relative to the stack's directory), or a path above it."""
    wanted = entry.removeprefix("./").rstrip("/") or "/"
    if wanted in one.aliases or wanted == one.name:
        return True
    path = stage.directory / wanted
    return any(path in (place, *place.parents) for place in (one.source, one.path)) and path != stage.directory


def _unused_skips(stage: Stage, policy: Policy, used: set[str]) -> list[Problem]:
    return [
        Problem(
            stage.stack,
            f"stackward.backup.skip names {display(entry)}, which is no tree of this stack",
            "name a tree as `stackward stacks` shows it; for something within a tree use stackward.backup.exclude",
            key="stackward.backup.skip",
        )
        for entry in policy.skip
        if entry not in used
    ]


def _relative(source: Path, directory: Path) -> PurePath | None:
    """`source` relative to the stack's directory, if it lies below it."""
    for base in (directory, _real(directory)):
        if base in source.parents:
            return source.relative_to(base)
    return None


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
