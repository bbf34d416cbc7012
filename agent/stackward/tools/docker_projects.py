"""Compose projects, or containers of theirs, that Compose itself takes down no more: it cannot read them in its file."""

from __future__ import annotations

from contextlib import suppress

import docker.errors

from stackward.core.staging_networks import LABEL
from stackward.tools.docker_engine import DockerError, Engine
from stackward.tools.docker_values import DIRECTORY_LABEL, PROJECT_LABEL, directory_label


class Projects(Engine):
    """Removes them by what Compose labels everything with that it makes; of stores, those that bear our label, too."""

    def remove_project(self, project: str, directory: str) -> None:
        """Remove the containers of a project that was started in `directory`, then its networks and volumes.

        What was not made for an instance of ours stays, also where no container tells whose it is. Gone is removed.

        Raises:
            DockerError: something else is called so, too (nothing was removed), or Docker would not.
        """
        label = {"label": f"{PROJECT_LABEL}={project}"}
        with self._translated(f"remove the project {project}"):
            containers = self._api.containers(all=True, filters=label)
            others = [
                one
                for one in containers
                if (one.get("Labels") or {}).get(DIRECTORY_LABEL) != directory_label(directory)
            ]
            if others:
                raise DockerError(
                    f"{others[0]['Names'][0].lstrip('/')} is of another project {project}: nothing was removed"
                )
            for container in containers:
                with suppress(docker.errors.NotFound):
                    self._api.remove_container(container["Id"], v=True, force=True)
            ours = {"label": [label["label"], f"{LABEL}={project}"]}
            for network in self._api.networks(filters=ours):
                with suppress(docker.errors.NotFound):
                    self._api.remove_network(network["Id"])
            for volume in self._api.volumes(filters=ours).get("Volumes") or []:
                with suppress(docker.errors.NotFound):
                    self._api.remove_volume(volume["Name"])

    def discard_container(self, container_id: str) -> None:
        """Remove a container, also while it runs, with its anonymous volumes; gone is removed."""
        with self._translated(f"remove {container_id[:12]}"), suppress(docker.errors.NotFound):
            self._api.remove_container(container_id, v=True, force=True)
