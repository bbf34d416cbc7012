"""Where `--to` leads: to a directory that the host has too, or into the appliance's own container."""

from __future__ import annotations

import os
from pathlib import Path

from stackward.core.errors import RefusedError
from stackward.core.model import display
from stackward.tools import filesystem, host_files


def require_writable(to: Path) -> None:
    """Raises RefusedError where `to` cannot be made: of the container itself next to nothing can be written."""
    there = Path(os.path.realpath(to))
    while not there.is_dir():
        there = there.parent
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        raise RefusedError(
            f"{display(to)} cannot be written from within the appliance's container",
            hint="name a directory below one that compose.yaml mounts into it: DOCKER_ROOT, /srv, STACKWARD_VOLUME …",
        )


def warning(to: Path) -> str:
    """What is to be said of a restore that went to `to`, or ""."""
    table = filesystem.mounts()
    if not host_files.in_container(table) or not host_files.is_of_container(Path(os.path.realpath(to)), table):
        return ""
    return f"{display(to)} is inside the appliance's container, not on the host"
