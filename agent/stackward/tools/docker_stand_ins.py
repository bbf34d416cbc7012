"""Containers that stand in for removed ones until Compose makes these again.

Compose hands a container's anonymous volumes on only to the one that takes its place. Where the old container must go before
the new one can be made, a stand-in keeps them: it never runs, and Compose takes it for an outdated container of the service.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import docker.errors

from stackward.tools.docker_engine import DockerError, Engine
from stackward.tools.docker_values import NUMBER_LABEL, PROJECT_LABEL, SERVICE_LABEL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stackward.core.model import Container

_LABEL = "stackward.stands-in"
_SUFFIX = ".stackward"
_OUTDATED = {"com.docker.compose.config-hash": "none"}  # without any, Compose does not see it
_ANONYMOUS = re.compile(r"[0-9a-f]{64}")


class StandIns(Engine):
    """Puts them up, and removes those that stand in for nobody."""

    def replace_by_stand_in(self, container_id: str) -> None:
        """Remove a container of Compose's that does not run, and put up one that keeps its anonymous volumes.

        Its other volumes are free afterwards. Killed meanwhile: one of the two is there, or both.

        Raises:
            DockerError: it runs; nothing was changed.
        """
        with self._translated(f"remove {container_id[:12]}"):
            try:
                found = self._api.inspect_container(container_id)
            except docker.errors.NotFound:
                return
            if found["State"].get("Running"):
                raise DockerError(f"{str(found['Name']).lstrip('/')} runs", hint="stop it, and try again")
            labels: dict[str, str] = found["Config"].get("Labels") or {}
            if _LABEL not in labels:
                self._put_up(found, labels)
            self._api.remove_container(container_id, v=False, force=False)

    def remove_needless_stand_ins(self) -> None:
        """Those whose container is there after all."""
        with self._translated("list containers"):
            listed = self._api.containers(all=True, filters={"label": PROJECT_LABEL})
            there = {_which(entry["Labels"]) for entry in listed if _LABEL not in entry["Labels"]}
            for entry in listed:
                if _LABEL in entry["Labels"] and _which(entry["Labels"]) in there:
                    self._api.remove_container(entry["Id"], v=False, force=True)

    def _put_up(self, found: Mapping[str, Any], labels: Mapping[str, str]) -> None:
        name = f"{str(found['Name']).lstrip('/')}{_SUFFIX}"
        with suppress(docker.errors.NotFound):
            self._api.remove_container(name, v=False)  # a killed run's
        kept, hidden = [], {}
        for mount in found.get("Mounts") or []:
            target = str(mount.get("Destination") or "")
            if mount.get("Type") == "volume" and _ANONYMOUS.fullmatch(str(mount.get("Name") or "")):
                kept.append(f"{mount['Name']}:{target}")
            else:
                hidden[target] = ""  # else Docker would make a new volume where the image asks for one
        self._api.create_container(
            str(found["Image"]),
            entrypoint=["true"],
            name=name,
            labels={**labels, **_OUTDATED, _LABEL: name},
            host_config=self._api.create_host_config(binds=kept, tmpfs=hidden, network_mode="none"),
            healthcheck={"test": ["NONE"]},
        )


def is_stand_in(container: Container) -> bool:
    """By its name, as it is made."""
    return container.name.endswith(_SUFFIX)


def _which(labels: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(labels.get(key, "") for key in (PROJECT_LABEL, SERVICE_LABEL, NUMBER_LABEL))
