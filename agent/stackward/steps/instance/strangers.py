"""What is somebody else's, and called as an instance's would be: Compose would take it for the instance's own.

Names of projects are all that Compose goes by: with an instance it removes each container of a project that is called so,
and each volume that it declares.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stackward.config import Settings
from stackward.core.model import Stack, display
from stackward.core.staging import Refusal
from stackward.core.staging_networks import LABEL
from stackward.tools.docker import PROJECT_LABEL, Docker


def called_alike(project: str, stacks: Sequence[Stack]) -> Iterator[Refusal]:
    """Another stack of that name, whether it runs or not."""
    other = next((stack for stack in stacks if stack.project == project), None)
    if other is not None:
        yield Refusal(
            f"its instance would be called {display(project)}, as the stack {display(other.name)} is",
            f"give {display(other.name)} another project name (`name:` in its compose file)",
        )


def in_the_way(settings: Settings, docker: Docker | None, project: str, model: Mapping[str, Any]) -> Iterator[Refusal]:
    """The first container, volume or network of a project that is no stack; also while that is down. Raises DockerError."""
    if docker is None:
        return
    found = [*_lost(settings, docker, project, model)]
    found += [
        f"network {one.name}" for one in docker.networks() if one.project == project and _is_other(project, one.labels)
    ]
    found += [
        f"volume {name}"
        for name, one in docker.volumes().items()
        if one.labels.get(PROJECT_LABEL) == project and _is_other(project, one.labels)
    ]
    for what in found[:1]:
        yield Refusal(
            f"its instance would be called {display(project)}, and the {display(what)}, which is called so, is somebody else's",
            f"give the project that it is of another name, or remove it if it is of no use: docker {what.split()[0]} rm",
        )


def taken_along(settings: Settings, docker: Docker, model: Mapping[str, Any]) -> str:
    """What would be lost if this instance were taken down, in words; or "". Raises DockerError."""
    project = str(model.get("name") or "")
    return next(_lost(settings, docker, project, model), "") if project else ""


def _lost(settings: Settings, docker: Docker, project: str, model: Mapping[str, Any]) -> Iterator[str]:
    homes = {settings.state_dir, Path(os.path.realpath(settings.state_dir))}
    for container in docker.containers(project):
        if not any(map(Path(container.working_dir).is_relative_to, homes)):
            yield f"container {container.name}"
    declared = {key: one or {} for key, one in (model.get("volumes") or {}).items()}
    wanted = {str(one.get("name") or f"{project}_{key}") for key, one in declared.items() if not one.get("external")}
    for name, volume in docker.volumes().items():
        if name in wanted and _is_other(project, volume.labels):
            yield f"volume {name}"


def _is_other(project: str, labels: Mapping[str, str]) -> bool:
    return labels.get(LABEL) != project
