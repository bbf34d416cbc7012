"""Which files are the host's, can be seen from here, and may be read for a stack.

A compose file names paths of the host. In the appliance's container such a path leads to the host's file only below a bind
mount; elsewhere it leads to a file of the image, which must not pass for the stack's. Nor may a stack have the appliance's own
state, keys, sockets or logs read for it, although they are bind mounts, too. Paths are judged by where their links lead.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stackward.config import Settings
from stackward.core.model import display
from stackward.tools import filesystem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stackward.tools.filesystem import Mount

# What the container has for itself: its root, what compose.yaml gives it, and what Docker gives to every container.
_OWN_POINTS = tuple(map(Path, ("/", "/tmp", "/run", "/dev/shm")))  # noqa: S108
_OWN_TREES = tuple(map(Path, ("/dev", "/proc", "/sys")))
_CONTAINER_ID = re.compile(r"/containers/([0-9a-f]{64})/(?:hostname|hosts|resolv\.conf)$")


@dataclass(frozen=True, slots=True)
class HostFiles:
    """`visible` are the directories that are mounted from the host's at the same path.

    Where they are not known, the `table` of mounts says what the container has for itself; where it is empty, this process is
    on the host itself, and all files are the host's. What is `closed` is read for no stack, except what is `opened` in it.
    """

    table: tuple[Mount, ...] = ()
    closed: tuple[Path, ...] = ()
    opened: tuple[Path, ...] = ()
    visible: tuple[Path, ...] | None = None

    def sees(self, path: Path) -> bool:
        """`path` is a real one."""
        if self.visible is not None:
            return any(path.is_relative_to(mounted) for mounted in self.visible)
        return not self.table or not is_of_container(path, self.table)

    def refusal(self, path: Path) -> str:
        """The reason for not reading a file that a stack names, as a sentence, or ""."""
        real = Path(os.path.realpath(path))
        leads = "" if real == path else f" leads to {display(real)}, which"
        if any(real.is_relative_to(one) for one in self.opened):
            return ""
        if any(real.is_relative_to(one) for one in self.closed):
            return f"{display(path)}{leads} belongs to the appliance itself, and is not read for a stack"
        if not self.sees(real):
            return f"{display(path)}{leads} is outside of what the appliance can see"
        return ""

    def advice(self, path: Path) -> str:
        """Advice on a refusal."""
        real = Path(os.path.realpath(path))
        if any(real.is_relative_to(one) for one in self.closed):
            return "name a file of the stack's own"
        where = display(real.parent)
        return f"move it into the stack's directory, or add `{where}:{where}` to the volumes of the appliance's compose.yaml"


def here(settings: Settings | None = None, *, opened: Iterable[Path] = ()) -> HostFiles:
    """As seen by this process. Without settings, the usual places are the appliance's own.

    A container that has DOCKER_ROOT (without settings: what is opened) for itself is a machine to develop on: it is the host.
    """
    table = filesystem.mounts()
    real = tuple(Path(os.path.realpath(path)) for path in opened)
    stacks = real if settings is None else (Path(os.path.realpath(settings.docker_root)),)
    within = in_container(table) and not any(is_of_container(path, table) for path in stacks)
    return HostFiles(table if within else (), closed_by(settings or Settings()), real)


def closed_by(settings: Settings) -> tuple[Path, ...]:
    """The appliance's own: what it keeps, its keys, its sockets, its logs; and backups, which hold other stacks' files."""
    own = [settings.state_dir, settings.config_dir, settings.run_dir, settings.log_dir, settings.backup_root]
    if settings.docker_host.startswith("unix://"):
        own.append(Path(settings.docker_host.removeprefix("unix://")))
    real = [Path(os.path.realpath(path)) for path in own]
    stacks = Path(os.path.realpath(settings.docker_root))
    return tuple(path for path in real if not stacks.is_relative_to(path))


def in_container(table: tuple[Mount, ...]) -> bool:
    """Tell whether this process runs in a container at all."""
    return own_container_id(table) is not None or any(
        mount.point == Path("/") and mount.type == "overlay" for mount in table
    )


def is_of_container(path: Path, table: tuple[Mount, ...]) -> bool:
    """Tell whether a real path, in a container, leads to something that the host does not have at that path."""
    point = filesystem.mount_of(path, table).point
    return point in _OWN_POINTS or any(point.is_relative_to(tree) for tree in _OWN_TREES)


def own_container_id(table: tuple[Mount, ...]) -> str | None:
    """Docker mounts /etc/hostname from a directory with the container's ID in its name."""
    for mount in table:
        if str(mount.point).startswith("/etc/") and (match := _CONTAINER_ID.search(mount.root)):
            return match[1]
    return None
