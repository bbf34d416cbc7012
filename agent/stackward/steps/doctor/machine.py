"""Docker, Compose, the programs, the rights, the mounts, the clock."""

from __future__ import annotations

import ctypes
import os
import shutil
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from stackward.core.model import display
from stackward.core.units import format_duration
from stackward.steps.doctor import Facts, Finding, error, info, ok, warn
from stackward.tools import compose, filesystem, process
from stackward.tools.docker import Docker, DockerError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROGRAMS = {
    "rsync": "copies data",
    "tar": "restores config backups",
    "age": "encrypts secrets",
    "setpriv": "runs them all",
}
_CAPABILITIES = {
    21: ("SYS_ADMIN", "Btrfs snapshots cannot be deleted, trusted.* attributes are lost"),
    0: ("CHOWN", "owners cannot be restored"),
    1: ("DAC_OVERRIDE", "files of other owners cannot be read"),
    3: ("FOWNER", "modes and times of other owners' files cannot be restored"),
    4: ("FSETID", "set-group-ID bits cannot be restored"),
    6: ("SETGID", "trees in use cannot be backed up"),
    18: ("SYS_CHROOT", "trees in use cannot be backed up"),
    27: ("MKNOD", "device nodes cannot be restored"),
    31: ("SETFCAP", "file capabilities cannot be restored"),
}
_ADJTIMEX_BYTES = 256
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


def look(facts: Facts) -> Iterator[Finding]:
    yield from _docker(facts)
    yield from _compose()
    yield from _programs(facts)
    yield from _rights()
    yield from _mounts(facts)
    yield from _clock(facts)


def _docker(facts: Facts) -> Iterator[Finding]:
    try:
        version = Docker(facts.settings.docker_host).version()
    except DockerError as failure:
        yield error("docker", failure.message, f"{failure.hint}; without it containers are neither seen nor quiesced")
        return
    yield ok("docker", f"Docker Engine {version} answers")


def _compose() -> Iterator[Finding]:
    try:
        yield ok("compose", f"Compose {compose.version()}")
    except compose.ComposeUnavailableError as failure:
        yield error("compose", failure.message, f"{failure.hint}; without it stacks are only half understood")
    except process.CommandError as failure:
        yield error("compose", failure.message, "reinstall the compose plugin")


def _programs(facts: Facts) -> Iterator[Finding]:
    wanted = dict(_PROGRAMS)
    if any(mount.type == "btrfs" for mount in facts.mounts):
        wanted["btrfs"] = "takes snapshots"
    for name, use in wanted.items():
        if shutil.which(name) is not None:
            continue
        yield error("programs", f"`{name}`, which {use}, is not installed", f"install {name}")


def _rights() -> Iterator[Finding]:
    if os.geteuid() != 0:
        yield error("rights", "not run as root: files of other owners cannot be read or restored", "run it as root")
        return
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    effective = next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:")), 0)
    for number, (name, loss) in _CAPABILITIES.items():
        if not effective >> number & 1:
            yield error("rights", f"the capability {name} is missing: {loss}", f"add {name} to cap_add in compose.yaml")


def _mounts(facts: Facts) -> Iterator[Finding]:
    settings = facts.settings
    if facts.own is None:
        return
    places = {
        "DOCKER_ROOT": settings.docker_root,
        "BACKUP_ROOT": settings.backup_root,
        "STACKWARD_VOLUME": settings.volume,
        "Docker's volumes": settings.docker_volumes,
    }
    binds = {Path(mount.target): mount for mount in facts.own.mounts if mount.kind == "bind"}
    for name, path in places.items():
        held = next((binds[place] for place in (path, *path.parents) if place in binds), None)
        if held is None:
            if name == "STACKWARD_VOLUME" and not path.exists():
                continue
            yield error("mounts", f"{name} {display(path)} is not mounted into the container", _mount_advice(path))
        elif held.source != held.target:
            advice = f"mount the host's {display(held.target)} there: paths in compose files mean the host's"
            yield error("mounts", f"{name}: {display(held.source)} is mounted at {display(held.target)}", advice)
        else:
            mount = filesystem.mount_of(path, facts.mounts)
            if not mount.propagation & {"master", "shared"}:
                yield warn(
                    "mounts",
                    f"{name}: a disk that is mounted on the host later would not appear in here",
                    "give the mount `bind: {propagation: rslave}` in compose.yaml",
                )
    for name, path in (("its state", settings.state_dir), ("its keys and settings", settings.config_dir)):
        if not any(place in {Path(m.target) for m in facts.own.mounts} for place in (path, *path.parents)):
            yield error("mounts", f"{name} in {display(path)} would go with the container", _mount_advice(path))


def _mount_advice(path: Path) -> str:
    return f"add `{display(path)}:{display(path)}` to the volumes in compose.yaml, then docker compose up -d"


def _clock(facts: Facts) -> Iterator[Finding]:
    newest = max((row.started_at for row in facts.store.runs(limit=5)), default=None)
    if newest is not None and newest - facts.now > timedelta(minutes=5):
        ahead = format_duration((newest - facts.now).total_seconds())
        yield error("clock", f"the clock was set back: the last run is {ahead} in the future", "set the clock right")
    if _unsynchronised():
        yield warn("clock", "the clock is not synchronised", "switch on NTP on the host: timedatectl set-ntp true")
    if facts.settings.zone.key == "UTC":
        yield info(
            "clock", "times are UTC; the night's backup begins at 02:00 UTC", "set TZ to your own zone, if you like"
        )


def _unsynchronised() -> bool:
    """What the kernel says of its clock; a machine that does not tell has none to complain of."""
    buffer = ctypes.create_string_buffer(_ADJTIMEX_BYTES)  # struct timex, zeroed: modes = 0 only reads
    return bool(ctypes.CDLL(None).adjtimex(buffer) == _TIME_ERROR)
