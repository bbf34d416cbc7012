"""host-report: the machine, its disks and their health, its file systems, Docker, and units that failed.

Written to docker-host.json in the directory of logs, as docs/jobs.md has it: whole, or the last one stays.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from stackward.config import Settings
from stackward.core.model import JobResult, Outcome, display
from stackward.core.progress import Progress
from stackward.core.remarks import Finding, Severity
from stackward.core.units import format_bytes
from stackward.steps.report import report_files
from stackward.steps.report.host_document import Btrfs, Facts, Space, make_document
from stackward.tools import btrfs_health, filesystem, machine, process
from stackward.tools.docker import Docker, DockerError
from stackward.tools.host import Bridge, BridgeError, BridgeUnavailableError

FILE = "docker-host.json"
_LITTLE = 0.05  # of a file system
_LITTLE_UNALLOCATED = 1 << 30  # with less, Btrfs may be full though it has free space


def run(
    *,
    settings: Settings,
    docker: Docker | None,
    bridge: Bridge,
    host_name: str,
    now: datetime,
    progress: Progress,
    dry_run: bool = False,
) -> JobResult:
    """Look, and write it down. A disk that fails, or lost data, makes it fail: somebody has to be told.

    Raises:
        StackwardError: the report cannot be written.
    """
    facts = observe(settings, docker, bridge, progress)
    findings = sorted(find(facts), key=lambda one: list(Severity).index(one.severity))
    document = make_document(facts, findings, host_name=host_name, now=now)
    if not dry_run:
        report_files.write(settings.log_dir / FILE, document)
    told = [one for one in findings if one.severity is not Severity.INFO]
    outcome = Outcome.WARN if told else Outcome.OK
    if any(one.severity is Severity.ERROR for one in told):
        outcome = Outcome.FAILED
    details = document if dry_run else {"file": str(settings.log_dir / FILE), "findings": document["findings"]}
    return JobResult(outcome, tuple(one.text for one in told), details=details)


def observe(settings: Settings, docker: Docker | None, bridge: Bridge, progress: Progress) -> Facts:
    facts = Facts(machine.read())
    progress.step("asking the file systems")
    facts.spaces = tuple(_spaces(settings))
    facts.btrfs = tuple(_btrfs(facts))
    progress.step("asking Docker and the host")
    try:
        facts.docker = docker.info() if docker else None
        unseen = "" if docker else "no Docker Engine answers"
    except DockerError as error:
        unseen = error.message
    if unseen:
        facts.missing.append(f"Docker is not told of: {unseen}")
    try:
        facts.host = bridge.facts()
        facts.missing += [f"the host has no {program}" for program in facts.host.missing]
    except (BridgeUnavailableError, BridgeError) as error:
        facts.missing.append(f"disks, their health and failed units are not readable here: {error.message}")
    return facts


def find(facts: Facts) -> Iterator[Finding]:
    """What a person should look at."""
    for path, smart in facts.smart.items():
        if smart.passed is False:
            worries = f" ({', '.join(smart.worries)})" if smart.worries else ""
            yield Finding(Severity.ERROR, "disks", f"the disk {display(path)} says that it is failing{worries}")
        elif smart.worries:
            yield Finding(Severity.WARN, "disks", f"the disk {display(path)} tells of {', '.join(smart.worries)}")
    for one in facts.btrfs:
        yield from _of_btrfs(one)
    for space in facts.spaces:
        if space.size_bytes and space.free_bytes < max(space.size_bytes * _LITTLE, space.minimum_bytes):
            text = (
                f"{display(space.path)} has {format_bytes(space.free_bytes)} free of {format_bytes(space.size_bytes)}"
            )
            yield Finding(Severity.WARN, "space", text)
        if space.files and space.free_files < space.files * _LITTLE:
            text = f"{display(space.path)} has room for {space.free_files} more files only"
            yield Finding(Severity.WARN, "space", text)
    for unit in facts.host.failed_units if facts.host else ():
        yield Finding(Severity.WARN, "systemd", f"the unit {display(unit)} has failed")


def _of_btrfs(one: Btrfs) -> Iterator[Finding]:
    place = display(one.path)
    for device in one.devices:
        if device.total:
            counted = ", ".join(f"{name} {count}" for name, count in device.errors.items() if count)
            yield Finding(Severity.ERROR, "btrfs", f"Btrfs counts errors of {device.path} ({place}): {counted}")
    if one.missing_devices:
        yield Finding(
            Severity.ERROR, "btrfs", f"the Btrfs file system {place} misses {one.missing_devices} of its devices"
        )
    if one.usage.unallocated < _LITTLE_UNALLOCATED and one.usage.size > 4 * _LITTLE_UNALLOCATED:
        left = format_bytes(one.usage.unallocated)
        text = f"the Btrfs file system {place} has only {left} unallocated: btrfs balance start -dusage=50 {place}"
        yield Finding(Severity.WARN, "btrfs", text)


def _spaces(settings: Settings) -> Iterator[Space]:
    """The file systems of every place that matters to us, each once."""
    table = filesystem.mounts()
    places = {
        "DOCKER_ROOT": settings.docker_root,
        "BACKUP_ROOT": settings.backup_root,
        "STACKWARD_VOLUME": settings.volume,
        "Docker's volumes": settings.docker_volumes,
        "Stackward's state": settings.state_dir,
        "logs": settings.log_dir,
    }
    found: dict[str, list[tuple[str, Path, filesystem.Mount]]] = {}
    for name, path in places.items():
        real = Path(os.path.realpath(path))
        if real.exists():
            mount = filesystem.mount_of(real, table)
            found.setdefault(mount.device, []).append((name, real, mount))
    for held in found.values():
        _, path, mount = held[0]
        names = tuple(name for name, _, _ in held)
        minimum = settings.minimum_free_bytes if "BACKUP_ROOT" in names else 0
        with suppress(OSError):  # gone meanwhile
            yield _space(path, mount, names, minimum)


def _space(path: Path, mount: filesystem.Mount, places: tuple[str, ...], minimum_bytes: int) -> Space:
    found = os.statvfs(path)
    return Space(
        path=path,
        places=places,
        type=mount.type,
        device=mount.source,
        size_bytes=found.f_blocks * found.f_frsize,
        free_bytes=found.f_bavail * found.f_frsize,
        files=found.f_files,
        free_files=found.f_favail,
        minimum_bytes=minimum_bytes,
    )


def _btrfs(facts: Facts) -> Iterator[Btrfs]:
    for space in facts.spaces:
        if space.type != "btrfs":
            continue
        try:
            yield Btrfs(
                space.path,
                btrfs_health.device_stats(space.path),
                btrfs_health.usage(space.path),
                btrfs_health.missing_devices(space.path),
            )
        except (process.CommandError, OSError, ValueError, KeyError, TypeError) as error:
            facts.missing.append(f"Btrfs does not tell of {display(space.path)}: {error}")
