"""Compose projects that Compose itself cannot take down any more, since it cannot read their file."""

from __future__ import annotations

import os

import docker.errors

from stackward.tools.docker_engine import DockerError, Engine
from stackward.tools.docker_values import PROJECT_LABEL

_DIRECTORY_LABEL = "com.docker.compose.project.working_dir"


class Projects(Engine):
    """Removes them by what Compose labels everything with that it makes."""

    def remove_project(self, project: str, directory: str) -> None:
        """Remove the containers of a project that was started in `directory`, then its networks and volumes.

        Raises:
            DockerError: something else is called so, too (nothing was removed), or Docker would not.
        """
        label = {"label": f"{PROJECT_LABEL}={project}"}
        with self._translated(f"remove the project {project}"):
            containers = self._api.containers(all=True, filters=label)
            others = [one for one in containers if (one.get("Labels") or {}).get(_DIRECTORY_LABEL) != _label(directory)]
            if others:
                raise DockerError(
                    f"{others[0]['Names'][0].lstrip('/')} is of another project {project}: nothing was removed"
                )
            for container in containers:
                try:
                    self._api.remove_container(container["Id"], v=True, force=True)
                except docker.errors.NotFound:
                    continue
            for network in self._api.networks(filters=label):
                self._api.remove_network(network["Id"])
            for volume in self._api.volumes(filters=label).get("Volumes") or []:
                self._api.remove_volume(volume["Name"])


def _label(directory: str) -> str:
    """As Compose has it, which puts a mark where a name is not UTF-8."""
    return os.fsencode(directory).decode("utf-8", "replace")
