"""Which containers belong to which stack, and which compose projects run elsewhere."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stackward.core.values import parse_boolean
from stackward.tools import compose

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stackward.core.model import Container

STAGING_SUFFIX = "-staging"
DRILL_SUFFIX = "-drill"
_SWITCHED_OFF = "its label stackward.backup says false"


@dataclass(frozen=True, slots=True)
class Outside:
    """A compose project that runs, but not from a directory directly under DOCKER_ROOT: it is not backed up.

    `switched_off`: its labels say themselves that it is not to be, and nobody has to decide.
    """

    project: str
    directory: str
    containers: int
    running: int
    reason: str
    switched_off: bool = False


def of_directory(containers: Iterable[Container], directory: Path) -> tuple[Container, ...]:
    """Containers that were started from `directory` under any project name, staging instances excepted."""
    real = os.path.realpath(directory)
    return tuple(
        container
        for container in containers
        if container.working_dir
        and os.path.realpath(container.working_dir) == real
        and (real.endswith(STAGING_SUFFIX) or not container.project.endswith(STAGING_SUFFIX))
    )


def members(containers: Sequence[Container], directory: Path, project: str) -> tuple[Container, ...]:
    """The stack's containers: of its project, unless they were started from another directory that is still a stack."""
    here = of_directory(containers, directory)
    ours = [c for c in containers if c.project == project and (c in here or not _is_elsewhere(c))]
    return tuple(ours or here)


def files_in_use(containers: Iterable[Container], directory: Path) -> tuple[Path, ...]:
    """The compose files that running containers were made from, if they are all there still and belong to the stack."""
    named = {container.config_files for container in of_directory(containers, directory)}
    for files in sorted(named):
        paths = tuple(directory / file for file in files)
        if paths and all(path.is_file() for path in paths) and any(path.is_relative_to(directory) for path in paths):
            return paths
    return ()


def outside(
    containers: Iterable[Container], known: Iterable[Container], projects: frozenset[str], root: Path
) -> tuple[Outside, ...]:
    """Projects of containers that belong to no stack; staging instances and drills of a stack's are its own."""
    ours = {container.id for container in known}
    groups: dict[tuple[str, str], list[Container]] = defaultdict(list)
    for container in containers:
        staged = any(
            container.project.endswith(suffix) and container.project.removesuffix(suffix) in projects
            for suffix in (STAGING_SUFFIX, DRILL_SUFFIX)
        )
        if container.project and container.id not in ours and not staged:
            groups[container.project, container.working_dir].append(container)
    found = []
    for (project, directory), group in sorted(groups.items()):
        running = sum(container.state == "running" for container in group)
        switched_off = _says_no(group)
        reason = _SWITCHED_OFF if switched_off else _why(directory, root)
        found.append(Outside(project, directory, len(group), running, reason, switched_off))
    return tuple(found)


def _says_no(containers: Iterable[Container]) -> bool:
    """Whether a label on any of them says plainly that it is not to be backed up, and none says anything else."""
    said = {container.backup for container in containers if container.backup}
    try:
        return bool(said) and not any(map(parse_boolean, said))
    except ValueError:
        return False


def _is_elsewhere(container: Container) -> bool:
    return bool(container.working_dir) and bool(compose.find_files(Path(container.working_dir)))


def _why(directory: str, root: Path) -> str:
    if not directory:
        return "nothing says where its compose file is"
    path = Path(os.path.realpath(directory))
    real = Path(os.path.realpath(root))
    if real in path.parents:
        return "not directly under DOCKER_ROOT" if path.parent != real else "its compose file is gone"
    return "not under DOCKER_ROOT"
