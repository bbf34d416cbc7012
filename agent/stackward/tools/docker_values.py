"""What Docker says of containers and volumes, as values."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackward.core.model import Container, Mount, PublishedPort

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PROJECT_LABEL = "com.docker.compose.project"
DIRECTORY_LABEL = "com.docker.compose.project.working_dir"
FILES_LABEL = "com.docker.compose.project.config_files"
SERVICE_LABEL = "com.docker.compose.service"
NUMBER_LABEL = "com.docker.compose.container-number"
ONE_OFF_LABEL = "com.docker.compose.oneoff"
NETWORK_LABEL = "com.docker.compose.network"
VOLUME_LABEL = "com.docker.compose.volume"
HELPER_LABEL = "stackward.helper"


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    """A volume. With `options` (a bind, NFS, CIFS) its mountpoint is empty while no container uses it."""

    name: str
    mountpoint: Path
    driver: str = "local"
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


def directory_label(directory: str | Path) -> str:
    """A directory as Compose has it in its label, with a mark where a name is not UTF-8."""
    return os.fsencode(directory).decode("utf-8", "replace")


def volume_info(found: Mapping[str, Any]) -> VolumeInfo:
    return VolumeInfo(
        name=str(found["Name"]),
        mountpoint=Path(str(found["Mountpoint"])),
        driver=str(found.get("Driver") or "local"),
        options=dict(found.get("Options") or {}),
        labels=dict(found.get("Labels") or {}),
    )


def container_of(found: Mapping[str, Any]) -> Container:
    labels: dict[str, str] = found["Config"].get("Labels") or {}
    state, host = found["State"], found.get("HostConfig") or {}
    files = labels.get(FILES_LABEL, "")
    return Container(
        id=str(found["Id"]),
        name=str(found["Name"]).lstrip("/"),
        project=labels.get(PROJECT_LABEL, ""),
        service=labels.get(SERVICE_LABEL, ""),
        state=str(state["Status"]),
        health=str((state.get("Health") or {}).get("Status") or "").replace("none", ""),
        restart_count=int(found.get("RestartCount") or 0),
        image_id=str(found["Image"]),
        image=str(found["Config"].get("Image") or ""),
        working_dir=labels.get(DIRECTORY_LABEL, ""),
        config_files=tuple(part for part in files.split(",") if part),
        one_off=labels.get(ONE_OFF_LABEL, "False") == "True",
        mounts=tuple(
            Mount(
                kind=str(mount.get("Type") or ""),
                name=str(mount.get("Name") or ""),
                source=os.fspath(mount.get("Source") or ""),
                target=str(mount.get("Destination") or ""),
                writable=bool(mount.get("RW")),
            )
            for mount in found.get("Mounts") or []
        ),
        exit_code=int(state.get("ExitCode") or 0),
        error=str(state.get("Error") or ""),
        out_of_memory=bool(state.get("OOMKilled")),
        restart_policy=str((host.get("RestartPolicy") or {}).get("Name") or ""),
        ports=tuple(sorted(set(_ports(found.get("NetworkSettings") or {})))),
        host_network=host.get("NetworkMode") == "host",
        backup=labels.get("stackward.backup", ""),
    )


def _ports(networking: Mapping[str, Any]) -> Iterator[PublishedPort]:
    """While it runs; a stopped container publishes none. `8080/tcp` → where the host listens for it."""
    for inside, outside in (networking.get("Ports") or {}).items():
        number, _, protocol = inside.partition("/")
        for place in outside or ():
            yield PublishedPort(str(place["HostIp"]), int(place["HostPort"]), int(number), protocol or "tcp")
