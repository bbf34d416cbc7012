"""What is left of an instance as it was before its stack changed: services, networks and volumes that it has no more.

Only what bears the instance's own labels is looked at: Compose's of its project and, for networks and volumes, ours too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stackward.core.staging_networks import LABEL
from stackward.tools.docker import PROJECT_LABEL, Docker

_RESTARTS = 3
_VOLUME_LABEL = "com.docker.compose.volume"


def remove_services(docker: Docker, project: str, model: Mapping[str, Any]) -> None:
    """To be done before the instance starts: they may have a port that it wants. Raises DockerError."""
    for container in docker.containers(project):
        if container.service not in (model.get("services") or {}) and not container.one_off:
            docker.discard_container(container.id)


def rest(docker: Docker, project: str) -> None:
    """One that crashes for ever is no instance: it is stopped, and what it said stays. Raises DockerError."""
    for container in docker.containers(project):
        if container.state == "restarting" or container.restart_count >= _RESTARTS:
            docker.stop(container.id)


def remove_stores(docker: Docker, project: str, model: Mapping[str, Any]) -> None:
    """Networks and volumes; to be done when nothing of the instance has them any more. Raises DockerError."""
    for network in docker.networks():
        is_its = network.project == project and network.labels.get(LABEL) == project
        if is_its and network.key not in (model.get("networks") or {}):
            docker.remove_network_by_id(network.id)
    for name, volume in docker.volumes().items():
        is_its = volume.labels.get(PROJECT_LABEL) == project and volume.labels.get(LABEL) == project
        if is_its and volume.labels.get(_VOLUME_LABEL) not in (model.get("volumes") or {}):
            docker.remove_volume(name)
