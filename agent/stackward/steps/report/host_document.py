"""docker-host.json: what a look at the host showed, as a document. docs/jobs.md has the schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from stackward import __version__
from stackward.core import smart
from stackward.core.model import display
from stackward.core.remarks import Finding
from stackward.core.smart import Smart
from stackward.tools.btrfs_health import Device, Usage
from stackward.tools.host import HostFacts
from stackward.tools.machine import Machine

FORMAT = 1
NOT_READABLE = "not readable here"


@dataclass(frozen=True, slots=True)
class Space:
    """A file system by one of the paths that lie on it, and which of our places do.

    `files` is 0 where it has no fixed number of inodes; below `minimum_bytes` no backup is begun.
    """

    path: Path
    places: tuple[str, ...]
    type: str
    device: str
    size_bytes: int
    free_bytes: int
    files: int = 0
    free_files: int = 0
    minimum_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Btrfs:
    """A Btrfs file system by a path on it."""

    path: Path
    devices: tuple[Device, ...]
    usage: Usage
    missing_devices: int = 0


@dataclass(slots=True)
class Facts:
    """What was found. `missing` says in words what could not be; `host` is None where the bridge does not answer."""

    machine: Machine
    spaces: tuple[Space, ...] = ()
    btrfs: tuple[Btrfs, ...] = ()
    docker: dict[str, Any] | None = None
    host: HostFacts | None = None
    missing: list[str] = field(default_factory=list)

    @property
    def smart(self) -> dict[str, Smart]:
        """By the disk's path; those that tell nothing are left out."""
        told = {path: smart.read(document) for path, document in (self.host.smart if self.host else {}).items()}
        return {path: found for path, found in told.items() if found.known}


def make_document(facts: Facts, findings: Sequence[Finding], *, host_name: str, now: datetime) -> dict[str, Any]:
    """The report."""
    one = facts.machine
    booted = now - timedelta(seconds=one.uptime_seconds) if one.uptime_seconds else None
    return {
        "format": FORMAT,
        "job": "host-report",
        "at": now.isoformat(timespec="seconds"),
        "host": host_name,
        "stackward": __version__,
        "missing": facts.missing,
        "findings": [
            {"severity": finding.severity.value, "topic": finding.topic, "text": finding.text} for finding in findings
        ],
        "hardware": {
            "architecture": one.architecture,
            "cpu": one.cpu,
            "cores": one.cores,
            "memory_bytes": dict(one.memory),
            "product": dict(one.product),
        },
        "kernel": {
            "release": one.kernel,
            "version": one.kernel_version,
            "booted_at": booted.isoformat(timespec="seconds") if booted else None,
            "uptime_seconds": round(one.uptime_seconds),
            "load": list(one.load),
        },
        "filesystems": [{**asdict(space), "path": display(space.path)} for space in facts.spaces],
        "btrfs": [
            {
                "path": display(found.path),
                "devices": [{"device": display(device.path), **device.errors} for device in found.devices],
                "missing_devices": found.missing_devices,
                "usage_bytes": asdict(found.usage),
            }
            for found in facts.btrfs
        ],
        "disks": list(_disks(facts.host.disks, facts.smart)) if facts.host else NOT_READABLE,
        "docker": _docker(facts.docker) if facts.docker is not None else None,
        "systemd": {"failed_units": list(facts.host.failed_units) if facts.host else NOT_READABLE},
    }


def _disks(tree: Sequence[Mapping[str, Any]], healths: Mapping[str, Smart]) -> Iterator[dict[str, Any]]:
    """The tree that lsblk prints, each device with the one it lies on as its parent."""
    for disk in tree:
        yield from _disk(disk, "", healths)


def _disk(disk: Mapping[str, Any], parent: str, healths: Mapping[str, Smart]) -> Iterator[dict[str, Any]]:
    path = str(disk.get("path") or "")
    health = healths.get(path)
    yield {
        "path": display(path),
        "parent": display(parent),
        "type": disk.get("type"),
        "size_bytes": disk.get("size"),
        "model": _words(disk.get("model")),
        "serial": _words(disk.get("serial")),
        "rotating": disk.get("rota"),
        "filesystem": disk.get("fstype"),
        "label": disk.get("label"),
        "mountpoint": disk.get("mountpoint"),
        "smart": asdict(health) if health else NOT_READABLE if disk.get("type") == "disk" else None,
    }
    for child in disk.get("children") or ():
        yield from _disk(child, path, healths)


def _docker(info: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "version": info.get("ServerVersion"),
        "operating_system": info.get("OperatingSystem"),
        "root": info.get("DockerRootDir"),
        "storage_driver": info.get("Driver"),
        "logging_driver": info.get("LoggingDriver"),
        "cgroup_version": info.get("CgroupVersion"),
        "live_restore": info.get("LiveRestoreEnabled"),
        "containers": {
            "total": info.get("Containers"),
            "running": info.get("ContainersRunning"),
            "paused": info.get("ContainersPaused"),
            "stopped": info.get("ContainersStopped"),
        },
        "images": info.get("Images"),
        "warnings": list(info.get("Warnings") or ()),
    }


def _words(value: object) -> str | None:
    return display(str(value).strip()) if value else None
