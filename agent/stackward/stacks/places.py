"""What can be said of a host path from where we are: is it here, is it local, is it the system's or our own?"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stackward.core.model import display
from stackward.tools import filesystem, host_files
from stackward.tools.docker import Docker, DockerError
from stackward.tools.host_files import HostFiles, own_container_id

if TYPE_CHECKING:
    from stackward.config import Settings
    from stackward.core.model import Container

# Nothing in or below these is a stack's data.
_SYSTEM = tuple(
    map(
        Path,
        (
            *("/proc", "/sys", "/dev", "/run", "/var/run", "/boot", "/usr", "/lib/modules"),
            *("/var/lib/docker", "/var/lib/containerd", "/etc/localtime", "/etc/timezone", "/etc/machine-id"),
            *("/etc/passwd", "/etc/group", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/etc/ssl"),
        ),
    )
)
# These themselves are the host's, though what lies below may well be a stack's.
_SYSTEM_ROOTS = tuple(
    map(Path, ("/", "/etc", "/var", "/var/lib", "/tmp", "/var/tmp", "/bin", "/sbin", "/lib", "/lib64"))  # noqa: S108
)
_VOLUME_DATA = "_data"  # Docker keeps a volume's files in VOLUMES/NAME/_data
_KINDS = ((stat.S_ISSOCK, "socket"), (stat.S_ISBLK, "device"), (stat.S_ISCHR, "device"), (stat.S_ISFIFO, "fifo"))


_COPIES = (".nightly", ".stackward")  # on the volume


@dataclass(frozen=True, slots=True)
class Place:
    """Why a path is no tree that a backup can cover; `reason` is "" where it can. `remote` alone gives way to `all`."""

    reason: str = ""
    remote: bool = False


@dataclass(frozen=True, slots=True)
class Host:
    """The host as it is seen from here.

    `visible` are the host's directories that the appliance has mounted at the same path; None: it is the host itself.
    """

    settings: Settings
    mounts: tuple[filesystem.Mount, ...]
    visible: tuple[Path, ...] | None = None

    def judge(self, source: Path, path: Path) -> Place:
        """`source` as Compose has it, `path` its realpath."""
        if reason := self._system(source, path) or self._ours(path):
            return Place(reason)
        if not self.is_visible(path):
            wanted = display(path.parent.parent if path.name == _VOLUME_DATA else path)
            return Place(f"not mounted into the appliance: add `{wanted}:{wanted}` to the volumes of its compose.yaml")
        if (kind := filesystem.mount_of(path, self.mounts).type) in filesystem.REMOTE_TYPES:
            return Place(f"on a remote file system ({kind}): back it up where it lives", remote=True)
        return Place(_special(path))

    @property
    def files(self) -> HostFiles:
        """What may be read for a stack of what its compose file names."""
        return HostFiles((), host_files.closed_by(self.settings), visible=self.visible)

    def is_visible(self, path: Path) -> bool:
        return self.files.sees(path)

    def _system(self, source: Path, path: Path) -> str:
        for one in dict.fromkeys((source, path)):
            if one in _SYSTEM_ROOTS or (
                any(one.is_relative_to(system) for system in _SYSTEM)
                and not one.is_relative_to(self.settings.docker_volumes)
            ):
                return "belongs to the system"
        return ""

    def _ours(self, path: Path) -> str:
        settings = self.settings
        for name, ours in (
            ("BACKUP_ROOT", settings.backup_root),
            ("Stackward's own state", settings.state_dir),
            ("Stackward's own settings", settings.config_dir),
        ):
            real = Path(os.path.realpath(ours))
            if path.is_relative_to(real):
                return f"lies in {name}" if path != real else f"is {name}"
            if real.is_relative_to(path):
                return f"contains {name}"
        volume = Path(os.path.realpath(settings.volume))
        if any(path.is_relative_to(volume / name) for name in _COPIES):
            return "a snapshot of the volume: what it was made of is backed up"
        if Path(os.path.realpath(settings.docker_root)).is_relative_to(path):
            return "contains DOCKER_ROOT: each stack is backed up on its own"
        return ""


def _special(path: Path) -> str:
    """The last to be asked: a look at a dead server's files may never come back."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return ""
    return next((f"a {name}, no directory" for test, name in _KINDS if test(mode)), "")


def look(settings: Settings, docker: Docker | None) -> Host:
    """The host as seen now."""
    table = filesystem.mounts()
    if not host_files.here(settings).table:
        return Host(settings, table)
    own_id = own_container_id(table)
    try:
        own = docker.container(own_id) if docker is not None and own_id is not None else None
    except DockerError:
        docker, own = None, None
    if own is not None:
        same = [Path(m.target) for m in own.mounts if m.kind == "bind" and m.source == m.target]
        volumes = [settings.docker_volumes] if any(m.target == str(settings.docker_volumes) for m in own.mounts) else []
        return Host(settings, table, tuple(dict.fromkeys([*same, *volumes])))
    if docker is not None and own_id is not None:
        return Host(settings, table)  # another engine's container: a test machine, which is the host to this engine
    inside = [
        m.point for m in table if not (own_id and own_id in m.root) and not host_files.is_of_container(m.point, table)
    ]
    return Host(settings, table, tuple(inside))


def own_container(docker: Docker | None, table: tuple[filesystem.Mount, ...]) -> Container | None:
    """The container that we run in, if it is one of this engine's."""
    own_id = own_container_id(table)
    if docker is None or own_id is None:
        return None
    try:
        return docker.container(own_id)
    except DockerError:
        return None
