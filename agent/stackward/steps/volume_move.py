"""Makes a named volume one that is bound to a directory of ours, or a plain one again.

Docker cannot change a volume: it is removed and made again, under its name and with its labels, so that Compose takes it for
its own. A volume that any container has, also a stopped one, cannot be removed: the stack's own, stopped before, are
removed too, and Compose makes them again. What the volume held is kept in another one. Each step may be taken twice: a run
that was killed is finished by whoever takes back its undo record.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from stackward.core.errors import StackwardError
from stackward.tools import filesystem
from stackward.tools.docker import Docker, DockerError
from stackward.tools.docker_values import VolumeInfo

KEPT_SUFFIX = ".before-stackward"
KEPT_LABEL = "stackward.kept"
_RUNNING = ("running", "paused", "restarting")


@dataclass(frozen=True, slots=True)
class VolumeMove:
    """`target` is the directory that the volume is bound to; "" makes it a plain one with what was kept."""

    name: str
    target: str
    labels: dict[str, str]

    @property
    def kept(self) -> str:
        return self.name + KEPT_SUFFIX

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def options_for(target: Path) -> dict[str, str]:
    return {"type": "none", "o": "bind", "device": str(target)}


def carry_out(docker: Docker, written: str) -> None:
    """Do what `to_json` wrote, from wherever it was left.

    Raises:
        DockerError: somebody runs on the volume, or Docker could not do it.
        OSError: what the volume holds could not be moved.
    """
    move = VolumeMove(**json.loads(written))
    try:
        if move.target:
            _bind(docker, move)
        else:
            _unbind(docker, move)
    except StackwardError as error:
        raise DockerError(f"volume {move.name}: {error.message}") from error


def _bind(docker: Docker, move: VolumeMove) -> None:
    info = docker.volume(move.name)
    if info is not None and info.options:
        return
    if info is not None:
        _free(docker, move.name)
        kept = docker.volume(move.kept) or docker.create_volume(
            move.kept, driver="local", options={}, labels={KEPT_LABEL: move.name}
        )
        _pour(info, kept)
        docker.remove_volume(move.name)
    docker.create_volume(move.name, driver="local", options=options_for(Path(move.target)), labels=move.labels)


def _unbind(docker: Docker, move: VolumeMove) -> None:
    kept = docker.volume(move.kept)
    if kept is None:
        return
    info = docker.volume(move.name)
    if info is not None and info.options:
        _free(docker, move.name)
        docker.remove_volume(move.name)
        info = None
    info = info or docker.create_volume(move.name, driver="local", options={}, labels=move.labels)
    _pour(kept, info)
    docker.remove_volume(move.kept)


def _free(docker: Docker, name: str) -> None:
    """Remove the stopped containers that have the volume. Raises DockerError where one of them runs."""
    for container in docker.containers():
        if any(mount.name == name for mount in container.mounts):
            if container.state in _RUNNING:
                raise DockerError(f"{container.name} runs on it", hint="stop it, and try again")
            docker.remove_stopped(container.id)


def _pour(source: VolumeInfo, target: VolumeInfo) -> None:
    """What is in one volume is in the other, in one step; where it is there already, it stays."""
    if os.listdir(target.mountpoint):
        return
    if not filesystem.exchange(source.mountpoint, target.mountpoint):
        raise OSError(f"{source.mountpoint} cannot be exchanged with another directory")
    for one in (source, target):
        filesystem.sync_path(one.mountpoint.parent)
