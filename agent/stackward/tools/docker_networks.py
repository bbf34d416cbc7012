"""Networks, as they are and by whom, and the host's routes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import docker.errors

from stackward.tools import routes
from stackward.tools.docker_engine import Engine
from stackward.tools.docker_values import HELPER_LABEL, NETWORK_LABEL, PROJECT_LABEL

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOOK_SECONDS = 20


@dataclass(frozen=True, slots=True)
class NetworkInfo:
    """`project` and `key` are those of Compose, "" where it made it not; `subnets` are as Docker writes them."""

    id: str
    name: str
    project: str = ""
    key: str = ""
    subnets: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


class Networks(Engine):
    """Lists networks, and removes what is named."""

    def networks(self) -> list[NetworkInfo]:
        with self._translated("list networks"):
            listed = self._api.networks()
        return [
            NetworkInfo(
                id=str(entry["Id"]),
                name=str(entry["Name"]),
                project=(labels := entry.get("Labels") or {}).get(PROJECT_LABEL, ""),
                key=labels.get(NETWORK_LABEL, ""),
                subnets=tuple(
                    str(one["Subnet"]) for one in (entry.get("IPAM") or {}).get("Config") or [] if one.get("Subnet")
                ),
                labels=labels,
            )
            for entry in listed
        ]

    def host_routes(self, image: str) -> tuple[str, ...]:
        """The subnets that the host has a route to, which only a container in its network sees; the image is here.

        Raises:
            DockerError: it could not be asked.
        """
        with self._translated("look at the host's routes"):
            helper = self._api.create_container(
                image,
                entrypoint=["cat"],
                command=[routes.TABLE],
                user="65534:65534",
                labels={HELPER_LABEL: self._owner},
                host_config=self._api.create_host_config(network_mode="host", init=False),
                healthcheck={"test": ["NONE"]},
            )["Id"]
            try:
                self._api.start(helper)
                self._api.wait(helper, timeout=_LOOK_SECONDS)
                table: bytes = self._api.logs(helper, stderr=False)
            finally:
                self._api.remove_container(helper, v=True, force=True)
        return routes.subnets(table.decode("ascii", "replace"))

    def remove_network_by_id(self, network_id: str) -> None:
        """Gone is removed. Raises DockerError while a container has it."""
        with self._translated("remove a network"):
            try:
                self._api.remove_network(network_id)
            except docker.errors.NotFound:
                return
