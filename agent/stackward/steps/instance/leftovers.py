"""What is left of an instance as it was before its stack changed: services, networks and volumes that it has no more.

Only what bears the instance's own labels is looked at: Compose's of its project and, for networks and volumes, ours too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from stackward.core.staging_networks import LABEL
from stackward.steps.instance import healthy
from stackward.tools.docker import PROJECT_LABEL, Docker, DockerError
from stackward.tools.docker_values import VOLUME_LABEL


def remove_services(docker: Docker, project: str, model: Mapping[str, Any]) -> None:
    """To be done before the instance starts: they may have a port that it wants. Raises DockerError."""
    for container in docker.containers(project):
        if container.service not in (model.get("services") or {}) and not container.one_off:
            docker.discard_container(container.id)


def rest(docker: Docker, project: str, before: Mapping[str, int]) -> None:
    """One that crashes for ever is no instance: it is stopped, and what it said stays. Raises DockerError.

    `before` are the `healthy.restart_counts` when the start began. What ended as it was to is no crash.
    """
    for container in docker.containers(project):
        crashed = container.state == "restarting" and container.exit_code != 0
        if crashed or healthy.restarts_since(container, before) >= healthy.RESTARTS:
            docker.stop(container.id)


def remove_stores(docker: Docker, project: str, model: Mapping[str, Any]) -> list[str]:
    """Networks and volumes; to be done when nothing of the instance has them any more.

    Returns what could not be removed, in words: somebody else's container may have it.
    """
    try:
        networks, volumes = docker.networks(), docker.volumes()
    except DockerError as error:
        return [error.message]
    acts: list[Callable[[], None]] = []
    for network in networks:
        is_its = network.project == project and network.labels.get(LABEL) == project
        if is_its and network.key not in (model.get("networks") or {}):
            acts.append(partial(docker.remove_network_by_id, network.id))
    for name, volume in volumes.items():
        is_its = volume.labels.get(PROJECT_LABEL) == project and volume.labels.get(LABEL) == project
        if is_its and volume.labels.get(VOLUME_LABEL) not in (model.get("volumes") or {}):
            acts.append(partial(docker.remove_volume, name))
    return [said for act in acts for said in _refused(act)]


def _refused(act: Callable[[], None]) -> Iterator[str]:
    try:
        act()
    except DockerError as error:
        yield f"something that it has no more is left: {error.message}"
