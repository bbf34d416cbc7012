"""Docker, through its API: containers, exec, volumes, images.

What is asked for twice is done once: stopping a stopped container, pausing a paused one are no errors.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

import docker
import docker.errors

from stackward.tools.docker_engine import DockerError, DockerUnavailableError, NotFoundError
from stackward.tools.docker_events import Events
from stackward.tools.docker_exec import ExecResult, HookTimeout, execute
from stackward.tools.docker_leftovers import Leftovers
from stackward.tools.docker_networks import Networks
from stackward.tools.docker_projects import Projects
from stackward.tools.docker_stand_ins import StandIns
from stackward.tools.docker_values import HELPER_LABEL, PROJECT_LABEL, VolumeInfo, container_of, volume_info

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stackward.core.model import Container

__all__ = [
    "PROJECT_LABEL",
    "Docker",
    "DockerError",
    "DockerUnavailableError",
    "ExecResult",
    "HookTimeout",
    "NotFoundError",
    "VolumeInfo",
]

_GRACE_SECONDS = 10.0  # Docker's own default
_KILL_SECONDS = 2.0  # how long a container takes to be gone after Docker has killed it
_POLL_SECONDS = 0.2


class Docker(Leftovers, Networks, Projects, StandIns, Events):
    """One engine. Nothing is asked before the first call; any call may raise DockerUnavailableError: none answers."""

    def containers(self, project: str | None = None) -> list[Container]:
        """All containers in any state, or those of one compose project; one that vanishes meanwhile is left out."""
        filters = {"label": f"{PROJECT_LABEL}={project}"} if project is not None else {}
        with self._translated("list containers"):
            listed = self._api.containers(all=True, filters=filters)
            found = [self._inspected(str(entry["Id"])) for entry in listed]
        return sorted((c for c in found if c is not None), key=lambda c: (c.project, c.name))

    def container(self, container_id: str) -> Container | None:
        """The container as it is now; None when it is gone."""
        with self._translated("inspect a container"):
            return self._inspected(container_id)

    def logs(self, container_id: str, *, lines: int = 20) -> str:
        """The last lines of what the container said."""
        with self._translated("read the log of a container"):
            text: bytes = self._api.logs(container_id, tail=lines)
        return text.decode("utf-8", "backslashreplace")

    def pause(self, container_id: str) -> None:
        """Raises NotFoundError, or DockerError when it cannot be paused (also when it does not run)."""
        with self._translated(f"pause {container_id[:12]}"):
            if self._state(container_id) != "paused":
                self._api.pause(container_id)

    def unpause(self, container_id: str) -> None:
        """A container that is gone, or no longer paused, needs nothing."""
        with self._translated(f"unpause {container_id[:12]}"):
            try:
                if self._state(container_id) == "paused":
                    self._api.unpause(container_id)
            except docker.errors.NotFound:
                return

    def stop(self, container_id: str, timeout_seconds: float | None = None) -> None:
        """Stop; killed by Docker after `timeout_seconds` (None: the container's own grace period). Gone is stopped."""
        with self._translated(f"stop {container_id[:12]}"):
            try:
                if timeout_seconds is None:
                    timeout_seconds = self._grace_seconds(container_id)
                self._api.stop(container_id, timeout=round(timeout_seconds))
            except docker.errors.NotFound:
                return

    def await_stop(self, container_id: str, since: float) -> None:
        """Wait until a stop that may be under way is done. Docker goes on with it when whoever asked is gone.

        At once for a container that does not run; for one that runs on, its grace period from `since` (monotonic).
        Raises NotFoundError.
        """
        with self._translated(f"wait for {container_id[:12]}"):
            end = since + self._grace_seconds(container_id) + _KILL_SECONDS
            while self._state(container_id) == "running" and time.monotonic() < end:
                time.sleep(_POLL_SECONDS)

    def start(self, container_id: str) -> None:
        """Start, and unpause if it is paused. Raises NotFoundError: a stack would be left without it."""
        with self._translated(f"start {container_id[:12]}"):
            if self._state(container_id) == "paused":
                self._api.unpause(container_id)
            self._api.start(container_id)

    def exec(
        self,
        container_id: str,
        command: Sequence[str],
        *,
        timeout_seconds: float,
        environment: Mapping[str, str] | None = None,
        user: str = "",
    ) -> ExecResult:
        """Run a command in a running container.

        Raises:
            HookTimeout: it did not end in time; it and its children have been killed.
            DockerError: the container is not running. (A command that is not there exits 126 or 127.)
        """
        with self._translated(f"run a command in {container_id[:12]}"):
            return execute(
                self._api, container_id, command, total_seconds=timeout_seconds, environment=environment, user=user
            )

    def exec_to_file(
        self,
        container_id: str,
        command: Sequence[str],
        destination: BinaryIO,
        *,
        stall_seconds: float = 600.0,
        environment: Mapping[str, str] | None = None,
        user: str = "",
    ) -> ExecResult:
        """Run a command and write its stdout, byte for byte; the tail is stderr's. It may take long, but not stall."""
        with self._translated(f"run a command in {container_id[:12]}"):
            return execute(
                self._api,
                container_id,
                command,
                stdout=destination.write,
                stall_seconds=stall_seconds,
                environment=environment,
                user=user,
            )

    def volume(self, name: str) -> VolumeInfo | None:
        with self._translated("inspect a volume"):
            try:
                found = self._api.inspect_volume(name)
            except docker.errors.NotFound:
                return None
        return volume_info(found)

    def volumes(self) -> dict[str, VolumeInfo]:
        """Every volume by name."""
        with self._translated("list volumes"):
            listed = self._api.volumes().get("Volumes") or []
        return {str(found["Name"]): volume_info(found) for found in listed}

    def create_volume(
        self, name: str, *, driver: str, options: Mapping[str, str], labels: Mapping[str, str]
    ) -> VolumeInfo:
        with self._translated("create a volume"):
            return volume_info(self._api.create_volume(name, driver, dict(options), dict(labels)))

    def remove_volume(self, name: str) -> None:
        """Remove a volume with what is in it; gone is removed. Raises DockerError while a container has it."""
        with self._translated(f"remove volume {name}"):
            try:
                self._api.remove_volume(name)
            except docker.errors.NotFound:
                return

    @contextmanager
    def holding_volume(self, name: str, image_id: str) -> Iterator[VolumeInfo]:
        """Keep a volume mounted on the host: one with driver options is empty while no container uses it.

        The helper runs `sleep` of an image that is already here, without a network, and is removed afterwards.
        """
        with self._translated(f"mount volume {name}"):
            if (found := self.volume(name)) is None:
                raise NotFoundError(f"volume {name} does not exist")
            if not image_id:
                raise DockerError(f"no image is here to mount volume {name} with", hint="start its stack once")
            mount = docker.types.Mount("/stackward-volume", name, type="volume", read_only=True, no_copy=True)
            config = self._api.create_host_config(mounts=[mount], network_mode="none", init=False)
            helper = self._api.create_container(
                image_id,
                entrypoint=["sleep"],
                command=["2147483647"],
                user="0",
                labels={HELPER_LABEL: self._owner},
                host_config=config,
                healthcheck={"test": ["NONE"]},
            )
        try:
            with self._translated(f"mount volume {name}"):
                self._api.start(helper["Id"])
            yield found
        finally:
            self._remove(str(helper["Id"]))

    def remove_helpers(self) -> int:
        """Remove helper containers that a killed run left. Returns how many there were."""
        with self._translated("list containers"):
            left = self._api.containers(all=True, filters={"label": f"{HELPER_LABEL}={self._owner}"})
        for container in left:
            self._remove(str(container["Id"]))
        return len(left)

    def image_info(self, image_id: str) -> dict[str, Any] | None:
        """`id`, `digests` (all RepoDigests), `tags`, `created_at` (RFC 3339) and `size_bytes`; None when it is gone."""
        with self._translated("inspect an image"):
            try:
                inspect: Any = self._api.inspect_image  # the stubs forget its types
                found = inspect(image_id)
            except docker.errors.NotFound:
                return None
        return {
            "id": found["Id"],
            "digests": found.get("RepoDigests") or [],
            "tags": found.get("RepoTags") or [],
            "created_at": found.get("Created") or "",
            "size_bytes": int(found.get("Size") or 0),
        }

    def _grace_seconds(self, container_id: str) -> float:
        """How long it may take to end before Docker kills it."""
        timeout = self._api.inspect_container(container_id)["Config"].get("StopTimeout")
        return _GRACE_SECONDS if timeout is None else float(timeout)

    def _state(self, container_id: str) -> str:
        return str(self._api.inspect_container(container_id)["State"]["Status"])

    def _inspected(self, container_id: str) -> Container | None:
        try:
            return container_of(self._api.inspect_container(container_id))
        except docker.errors.NotFound:
            return None

    def _remove(self, container_id: str) -> None:
        """Remove a helper with the anonymous volumes its image asked for; named ones stay."""
        with self._translated("remove a helper container"):
            try:
                self._api.remove_container(container_id, v=True, force=True)
            except docker.errors.NotFound:
                return
