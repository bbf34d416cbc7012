"""What the derivation of an instance must know of the host: what is where, which variables are set, which subnets are free."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

from stackward.config import Settings
from stackward.core.model import Stack
from stackward.core.staging import Facts
from stackward.core.staging_networks import Room, parsed
from stackward.steps.instance.place import Place
from stackward.tools import compose
from stackward.tools.docker import Docker, DockerError


def look(settings: Settings, docker: Docker | None, stack: Stack, place: Place, image: str) -> Facts:
    """What the derivation must know of the host."""
    volumes = {tree.volume: str(tree.path) for tree in stack.trees if tree.volume}
    volumes = _inner_volumes(docker, stack) | volumes | dict(place.volumes)
    real = {source: os.path.realpath(source) for source in sources(stack.raw)}
    facts = Facts(
        real=real,
        volumes=volumes,
        names={str(tree.path): tree.mount_name for tree in stack.trees},
        moves=place.moves,
        roots=tuple(os.path.realpath(root) for root in (settings.volume, settings.docker_root)),
        closed=tuple(
            os.path.realpath(path)
            for path in (settings.backup_root, settings.state_dir, settings.config_dir, settings.run_dir)
        ),
        variables=compose.variables(stack.directory, _named_variables(stack.raw)),
        proxy_image=image,
        home=os.fspath(place.directory),
        room=_room(settings, docker, place),
    )
    return replace(facts, kinds=_kinds(facts, _subpaths(stack.raw), fresh=place.is_fresh))


def host_routes(settings: Settings, docker: Docker | None, image: str) -> tuple[IPv4Network, ...]:
    """What no network of an instance may take from the host, Docker's own networks aside; nothing where it cannot be told.

    To be asked by whoever starts one: it takes a container, of the appliance's own image.
    """
    if docker is None or not image or not settings.staging_subnets:
        return ()
    try:
        known = {subnet for one in docker.networks() for subnet in parsed(one.subnets)}
        return tuple(one for one in parsed(docker.host_routes(image)) if one not in known)
    except DockerError:
        return ()


def _room(settings: Settings, docker: Docker | None, place: Place) -> Room:
    """Drills and staging have a half each: they are planned side by side, and none sees what the other will take."""
    networks = docker.networks() if docker is not None else []
    of_others = [subnet for one in networks if one.project != place.project for subnet in one.subnets]
    halves = [list(one.subnets(prefixlen_diff=1))[place.is_drill] for one in settings.staging_subnets]
    own = {one.key: subnet for one in networks if one.project == place.project for subnet in parsed(one.subnets)}
    called = f"the {('lower', 'upper')[place.is_drill]} half of {', '.join(map(str, settings.staging_subnets))}"
    return Room(tuple(halves), (*parsed(of_others), *place.subnets), own, called)


def _named_variables(model: Mapping[str, Any]) -> list[str]:
    """Those that secrets and configs come from."""
    declared = [one or {} for section in ("secrets", "configs") for one in (model.get(section) or {}).values()]
    return sorted({str(one["environment"]) for one in declared if one.get("environment")})


def sources(model: Mapping[str, Any]) -> Iterator[str]:
    """Every path of the host that the model names."""
    for service in (model.get("services") or {}).values():
        for mount in service.get("volumes") or []:
            if mount.get("type") == "bind" and mount.get("source"):
                yield str(mount["source"])
    for section in ("secrets", "configs"):
        for declared in (model.get(section) or {}).values():
            if (declared or {}).get("file"):
                yield str(declared["file"])
    for declared in (model.get("volumes") or {}).values():
        device = str(((declared or {}).get("driver_opts") or {}).get("device") or "")
        if device.startswith("/"):
            yield device


def _subpaths(model: Mapping[str, Any]) -> frozenset[str]:
    mounts = (mount for service in (model.get("services") or {}).values() for mount in service.get("volumes") or [])
    return frozenset(str((mount.get("volume") or {}).get("subpath") or "") for mount in mounts) - {""}


def _inner_volumes(docker: Docker | None, stack: Stack) -> dict[str, str]:
    """Volumes that are no trees of their own, since they lie within another one."""
    known = {tree.volume for tree in stack.trees}
    found = {}
    for key, declared in (stack.raw.get("volumes") or {}).items():
        name = str((declared or {}).get("name") or f"{stack.project}_{key}")
        if docker is None or name in known:
            continue
        try:
            info = docker.volume(name)
        except DockerError:
            continue
        if info is not None:
            device = info.options.get("device", "")
            found[name] = os.path.realpath(device if device.startswith("/") else info.mountpoint)
    return found


def _kinds(facts: Facts, subpaths: Iterable[str], *, fresh: bool) -> dict[str, str]:
    """Of every path that may be mounted, what it is; with `fresh`, of a copy what is now where it will be made from."""
    paths = [*facts.real.values(), *facts.volumes.values()]
    paths += [os.path.join(path, sub) for path in facts.volumes.values() for sub in subpaths]
    found = {}
    for path in paths:
        moved = facts.moved(path)
        for place, looked_at in ((path, path), (moved, path if fresh else moved)):
            if place is not None and looked_at is not None and (kind := _kind(looked_at)):
                found[place] = kind
    return found


def _kind(path: str) -> str:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return ""
    if stat.S_ISDIR(mode):
        return "directory"
    return "file" if stat.S_ISREG(mode) else "other"
