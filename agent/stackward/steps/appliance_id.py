"""The appliance's own ID: what tells its work in BACKUP_ROOT from that of another on the same share."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from stackward.tools import filesystem, small_files

if TYPE_CHECKING:
    from stackward.config import Settings

_FILE = "appliance-id"
_BYTES = 100


def appliance_id(settings: Settings) -> str:
    """Made when it is first asked for; a state directory that is copied to another host must be copied without it."""
    path = settings.state_dir / _FILE
    try:
        return str(uuid.UUID(small_files.read(path, _BYTES).decode("ascii", "replace").strip()))
    except (FileNotFoundError, ValueError):
        identity = str(uuid.uuid4())
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        filesystem.write_durably(path, f"{identity}\n".encode("ascii"))
        return identity


def owner(settings: Settings) -> str:
    """The part of the ID that stands in the names of what is unfinished."""
    return appliance_id(settings)[:8]
