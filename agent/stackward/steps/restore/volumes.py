"""Named volumes as directories to write into: made where they are missing, held mounted where they need it."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from stackward.core.errors import RefusedError, StackwardError
from stackward.core.model import Stack, display
from stackward.tools.docker import PROJECT_LABEL, Docker, VolumeInfo
from stackward.tools.docker_values import VOLUME_LABEL


def place(docker: Docker | None, stack: Stack, name: str, held: ExitStack) -> Path:
    """The directory that the volume is on the host; with driver options it stays mounted until `held` is left.

    A volume that is not there is made as Compose would make it, so that Compose takes it for its own.

    Raises:
        RefusedError: Docker does not answer, or the volume cannot be seen from here.
        DockerError: it could not be made or mounted.
    """
    if docker is None:
        raise RefusedError(
            f"volume {display(name)} cannot be looked up: no Docker Engine answers",
            hint="start Docker, or use --to DIR",
        )
    info = docker.volume(name) or _create(docker, stack, name)
    if info.options:
        held.enter_context(docker.holding_volume(name, _image(docker, stack)))
        if not os.path.ismount(info.mountpoint):
            raise RefusedError(
                f"volume {display(name)} is mounted, but not visible here at {display(info.mountpoint)}",
                hint="mount /var/lib/docker/volumes into the appliance with propagation rslave",
            )
    return Path(os.path.realpath(info.mountpoint))


def _create(docker: Docker, stack: Stack, name: str) -> VolumeInfo:
    for key, declared in (stack.raw.get("volumes") or {}).items():
        definition: dict[str, Any] = declared or {}
        if name not in (definition.get("name"), f"{stack.project}_{key}"):
            continue
        labels = {str(k): str(v) for k, v in (definition.get("labels") or {}).items()}
        if not definition.get("external"):
            labels |= {PROJECT_LABEL: stack.project, VOLUME_LABEL: key}
        options = {str(k): str(v) for k, v in (definition.get("driver_opts") or {}).items()}
        return docker.create_volume(
            name, driver=str(definition.get("driver") or "local"), options=options, labels=labels
        )
    if not stack.resolved:
        raise StackwardError(
            f"volume {display(name)} does not exist, and how to make it cannot be told:"
            f" {'; '.join(problem.message for problem in stack.problems)}",
            hint="mend that first (`stackward restore config --secrets`, if files are missing), or use --to DIR",
        )
    raise StackwardError(
        f"volume {display(name)} does not exist, and the compose file does not say how to make it",
        hint="get its data with --to DIR",
    )


def _image(docker: Docker, stack: Stack) -> str:
    """An image that is on the host already."""
    for container in stack.containers:
        if container.image_id:
            return container.image_id
    own = docker.container(socket.gethostname())
    if own is None:
        raise StackwardError("no image is at hand to mount the volume with", hint="create the stack's containers first")
    return own.image_id
