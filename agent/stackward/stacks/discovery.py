"""Finds the stacks: directories and compose files and containers become Stack values."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackward.core import artifacts
from stackward.core.errors import StackwardError
from stackward.core.labels import EXTENSION, PolicyReading, read_policy
from stackward.core.model import Container, Policy, Problem, Service, ServicePolicy, Stack, Tree, display
from stackward.stacks import membership, places, resolving, secrets, trees
from stackward.stacks.cache import Cache
from stackward.stacks.membership import Outside
from stackward.tools import compose
from stackward.tools.docker import Docker, DockerError, VolumeInfo

if TYPE_CHECKING:
    from stackward.config import Settings
    from stackward.store import Store
    from stackward.tools.host_files import HostFiles

_RESOLVERS = 4  # Compose takes 0.1 to 0.3 s a stack, most of it waiting
_UNSET = re.compile(r'The "?([^" ]+)"? variable is not set')


class DockerRootError(StackwardError):
    """DOCKER_ROOT is not a directory that can be listed."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """`problems` are those that belong to no stack; `docker_error` is why Docker could not be asked, or ""."""

    stacks: tuple[Stack, ...]
    outside: tuple[Outside, ...] = ()
    problems: tuple[Problem, ...] = ()
    docker_error: str = ""

    def stack(self, name: str) -> Stack | None:
        return next((stack for stack in self.stacks if stack.name == name), None)


@dataclass(frozen=True, slots=True)
class _Surroundings:
    settings: Settings
    store: Store
    host: places.Host
    containers: tuple[Container, ...]
    volumes: Mapping[str, VolumeInfo]
    cache: Cache


def discover(settings: Settings, docker: Docker | None, store: Store) -> Discovery:
    """Every stack under DOCKER_ROOT, sorted by name, whether Compose and Docker answer or not.

    Raises:
        DockerRootError: DOCKER_ROOT cannot be listed.
    """
    containers, volumes, docker_error = _ask_docker(docker)
    here = _Surroundings(
        settings,
        store,
        places.look(settings, docker if not docker_error else None),
        containers,
        volumes,
        Cache(settings.state_dir / "cache" / "stacks"),
    )
    chosen = [(directory, files) for directory in _directories(settings) if (files := _files(here, directory))]
    with ThreadPoolExecutor(_RESOLVERS) as pool:
        resolved = list(pool.map(lambda one: resolving.resolve(one[0], one[1], here.cache, here.host.files), chosen))
    problems = _compose_problems() if any(model.error for model in resolved) else ()
    stacks = [_stack(here, directory, model) for (directory, _), model in zip(chosen, resolved, strict=True)]
    stacks = _with_shared_projects_told(stacks)
    known = [container for stack in stacks for container in stack.containers]
    projects = frozenset(stack.project for stack in stacks)
    elsewhere = membership.outside(containers, known, projects, settings.docker_root)
    return Discovery(tuple(stacks), elsewhere, problems, docker_error)


def _ask_docker(docker: Docker | None) -> tuple[tuple[Container, ...], Mapping[str, VolumeInfo], str]:
    if docker is None:
        return (), {}, "no Docker Engine answers"
    try:
        return tuple(docker.containers()), docker.volumes(), ""
    except DockerError as error:
        return (), {}, error.message


def _compose_problems() -> tuple[Problem, ...]:
    try:
        compose.command()
    except compose.ComposeUnavailableError as error:
        return (Problem("", error.message, error.hint),)
    return ()


def _directories(settings: Settings) -> list[Path]:
    root = settings.docker_root
    try:
        found = [root / name for name in os.listdir(root) if (root / name).is_dir()]
    except OSError as error:
        raise DockerRootError(
            f"DOCKER_ROOT {display(root)} cannot be read: {error.strerror}",
            hint="set DOCKER_ROOT to the directory whose subdirectories are your stacks, and mount it at the same path",
        ) from error
    return sorted(found, key=os.fsencode)


def _files(here: _Surroundings, directory: Path) -> tuple[Path, ...]:
    """Compose's own choice, unless the containers were made from more than that (`docker compose -f …`).

    Once the containers are gone, the choice they stood for is remembered.
    """
    found = compose.find_files(directory)
    used = membership.files_in_use(here.containers, directory)
    if used and not set(used) <= set(found):
        return used
    if not found and (kept := here.cache.load(directory)) and all(path.is_file() for path in kept.files):
        return kept.files
    return found


@dataclass(frozen=True, slots=True)
class _Read:
    """A stack's resolution with what its labels say. Where the text cannot be read at all, its past speaks for it."""

    resolved: resolving.Resolved
    labels: dict[str, dict[str, str]]
    now: PolicyReading
    past: PolicyReading | None

    @property
    def policy(self) -> Policy:
        if self.past is not None and not self.resolved.model.get("services"):
            return self.past.policy
        return self.now.policy


def _stack(here: _Surroundings, directory: Path, resolved: resolving.Resolved) -> Stack:
    name = directory.name
    model = resolved.model
    labels, reading = _reading(name, model)
    past = _reading(name, resolved.past)[1] if resolved.past is not None else None
    read = _Read(resolved, labels, reading, past)
    project = str(model.get("name") or (resolved.past or {}).get("name") or _project_name(name))
    containers = membership.members(here.containers, directory, project)
    if containers and not any(container.project == project for container in containers):
        project = containers[0].project
    opted_in, why, more = _decide(here, name, read)
    found, tree_problems = _trees(here, directory, read, containers, project)
    secret = secrets.find(
        directory,
        model if not resolved.error else resolved.past or {},
        resolved.env_files,
        [tree.path for tree in found if tree.covered],
        here.host.files,
    )
    return Stack(
        name=name,
        directory=directory,
        project=project,
        services=_services(model.get("services") or {}, labels, reading.services),
        trees=found,
        policy=read.policy,
        opted_in=opted_in,
        opted_reason=why,
        problems=(
            *_problems(directory, resolved),
            *reading.problems,
            *more,
            *tree_problems,
            *_unseen(name, secret, here.host.files),
        ),
        containers=containers,
        resolved=not resolved.error,
        secret_files=secret.files,
        unseen_secrets=secret.unseen,
        compose_sha256="" if resolved.error else _digest(model),
        external_networks=_external_networks(model),
        raw={} if resolved.error else model,
    )


def _reading(name: str, model: Mapping[str, Any]) -> tuple[dict[str, dict[str, str]], PolicyReading]:
    services = model.get("services") or {}
    labels = {service: _texts(definition.get("labels")) for service, definition in services.items()}
    return labels, read_policy(name, labels, model.get(EXTENSION))


def _problems(directory: Path, resolved: resolving.Resolved) -> list[Problem]:
    name = directory.name
    problems = []
    if name in artifacts.RESERVED_STACK_NAMES:
        message = f"a stack cannot be called {display(name)}: backups use that name themselves"
        problems.append(Problem(name, message, "rename the directory", key="name"))
    if resolved.error:
        hint = f"`docker compose config` in {display(directory)} says the same"
        problems.append(Problem(name, f"Compose cannot read it: {resolved.error}", hint))
    unset = sorted({match[1] for warning in resolved.warnings if (match := _UNSET.search(warning))})
    if unset:
        missing = "" if (directory / ".env").is_file() else "there is no .env here; "
        hint = f"{missing}set them in .env, or give them a default: ${{{unset[0]}:-…}}"
        problems.append(Problem(name, f"variables that are not set: {', '.join(unset)}", hint))
    return problems


def _unseen(name: str, found: secrets.Found, seen: HostFiles) -> list[Problem]:
    """What is named as a secret and cannot be had is in no backup; nor is what a mere link leads to."""
    return [
        Problem(name, f"{seen.refusal(path)}: it is in no backup", seen.advice(path), key=key)
        for paths, key in ((found.unseen, "secrets"), (found.strays, ""))
        for path in paths
    ]


def _decide(here: _Surroundings, name: str, read: _Read) -> tuple[bool, str, list[Problem]]:
    """Is the stack backed up, why, and what somebody has to look at because of it?"""
    said = read.now.policy.backup
    if name in artifacts.RESERVED_STACK_NAMES:
        return False, "its name is reserved", []
    if said is not None:
        if not said and not read.now.problems and not read.resolved.error and here.store.was_opted_in(name):
            here.store.forget_opted_in(name)  # a plain false ends what was; labels that vanish later are no alarm
        why = f"stackward.backup is {'true' if said else 'false'}"
        return said, why if not read.now.problems else "its labels have problems", []
    if read.resolved.error:
        return _decide_unread(here, name, read)
    if here.store.was_opted_in(name) and not here.settings.backup_default:
        message = "its labels no longer say that it is backed up; it goes on being backed up"
        hint = f"if this is meant: stackward accept {display(name)}"
        return True, "it was opted in until now", [Problem(name, message, hint)]
    return here.settings.backup_default, _default_reason(here), []


def _decide_unread(here: _Surroundings, name: str, read: _Read) -> tuple[bool, str, list[Problem]]:
    """The same where Compose cannot read the stack: left out only if its text or its past plainly says so."""
    if read.resolved.says_backup is not None:
        return read.resolved.says_backup, "its compose file says so, as far as it can be read", []
    if here.store.was_opted_in(name) or (read.past is not None and read.past.policy.backup):
        return True, "it was opted in until now", []
    return here.settings.backup_default, _default_reason(here), []


def _default_reason(here: _Surroundings) -> str:
    return "STACKWARD_BACKUP_DEFAULT is true" if here.settings.backup_default else "nobody decided"


def _trees(
    here: _Surroundings, directory: Path, read: _Read, containers: Sequence[Container], project: str
) -> tuple[tuple[Tree, ...], tuple[Problem, ...]]:
    stage = trees.Stage(directory.name, directory, here.host, here.volumes)
    model: dict[str, Any] = {"name": project, **read.resolved.model}
    if read.resolved.past is not None:
        model = _joined(model, read.resolved.past)
    return trees.find(stage, model, containers, read.policy)


def _joined(raw: Mapping[str, Any], past: Mapping[str, Any]) -> dict[str, Any]:
    """Mounts of the last good model and of the raw text: too much is safer than too little."""
    services: dict[str, dict[str, Any]] = {}
    for model in (past, raw):
        for name, definition in (model.get("services") or {}).items():
            services.setdefault(name, {"volumes": []})["volumes"] += definition.get("volumes") or []
    return {**past, "services": services, "volumes": {**(raw.get("volumes") or {}), **(past.get("volumes") or {})}}


def _services(
    services: Mapping[str, Any], labels: Mapping[str, dict[str, str]], policies: Mapping[str, ServicePolicy]
) -> tuple[Service, ...]:
    return tuple(
        Service(
            name=name,
            image=str(definition.get("image") or ""),
            policy=policies.get(name, ServicePolicy()),
            depends_on=tuple(definition.get("depends_on") or ()),
            labels=labels[name],
        )
        for name, definition in sorted(services.items())
    )


def _with_shared_projects_told(stacks: list[Stack]) -> list[Stack]:
    """Two directories with one project name take each other's containers down: say so at both."""
    told = []
    for stack in stacks:
        others = [other.name for other in stacks if other.project == stack.project and other.name != stack.name]
        if others:
            message = f"its project name {display(stack.project)} is that of {display(others[0])}, too"
            problem = Problem(stack.name, message, "give one of them a `name:` of its own in its compose file")
            told.append(replace(stack, problems=(*stack.problems, problem)))
        else:
            told.append(stack)
    return told


def _texts(labels: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in (labels or {}).items()}


def _external_networks(model: Mapping[str, Any]) -> tuple[str, ...]:
    networks = model.get("networks") or {}
    return tuple(
        sorted(
            str(net.get("name") or key)
            for key, net in networks.items()
            if isinstance(net, dict) and net.get("external")
        )
    )


def _project_name(directory_name: str) -> str:
    """What Compose makes of a directory's name."""
    return re.sub(r"[^a-z0-9_-]", "", directory_name.lower()).lstrip("_-")


def _digest(model: Mapping[str, Any]) -> str:
    text = json.dumps(model, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()
