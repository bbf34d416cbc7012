"""Names of what lies in BACKUP_ROOT.

Only these names are listed as backups. Everything unfinished is called `.incoming-OWNER.…`, so no listing takes it for one, and
no other appliance on the same share for its own.
Stamps in names are local time (`TZ`).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import datetime, tzinfo
from enum import StrEnum

INCOMING_PREFIX = ".incoming-"
ID_FILE = ".stackward-id"
LEASE = ".stackward-lease"
MANIFEST = "MANIFEST.sha256"
INDEX = "stackward.json"
MOUNTS = ".mounts"
DUMPS = ".dumps"
CHECKSUM_SUFFIX = ".sha256"
SIGNATURE_SUFFIX = ".sha256.sig"  # beside a config backup: who made it

# Directory names that a stack cannot have, since a data backup uses them itself.
RESERVED_STACK_NAMES = frozenset({MANIFEST, INDEX, MOUNTS, DUMPS})
_LONGEST_NAME = 255  # bytes, of one name on every file system that there is


class ArtifactKind(StrEnum):
    CONFIG = "config"
    SECRETS = "secrets"
    DATA = "data"


_CONFIG = re.compile(r"configs-(\d{8}_\d{6})\.tar\.gz", re.ASCII)
_SECRETS = re.compile(r"secrets-(\d{8}_\d{6})\.tar\.gz\.age", re.ASCII)
_DATA = re.compile(r"data-(\d{4}-\d{2}-\d{2})(?:\.replaced-(\d{8}_\d{6}))?", re.ASCII)
_INCOMING = re.compile(r"\.incoming-(?:([0-9a-f]{8})\.)?(.*)", re.DOTALL)
_STAMP = "%Y%m%d_%H%M%S"


@dataclass(frozen=True, slots=True, order=True)
class ArtifactName:
    """`when` is the time in the name (midnight for a data backup), `replaced_at` when a newer one took its name."""

    when: datetime
    kind: ArtifactKind
    name: str
    replaced_at: datetime | None = None


def parse_name(name: str, zone: tzinfo) -> ArtifactName | None:
    """The artifact that `name` names, or None when it is not one (also for dates that are not in the calendar)."""
    try:
        if match := _CONFIG.fullmatch(name):
            return ArtifactName(_parse(match[1], _STAMP, zone), ArtifactKind.CONFIG, name)
        if match := _SECRETS.fullmatch(name):
            return ArtifactName(_parse(match[1], _STAMP, zone), ArtifactKind.SECRETS, name)
        if match := _DATA.fullmatch(name):
            replaced = _parse(match[2], _STAMP, zone) if match[2] else None
            return ArtifactName(_parse(match[1], "%Y-%m-%d", zone), ArtifactKind.DATA, name, replaced)
    except ValueError:
        return None
    return None


def incoming_name(owner: str, rest: str) -> str:
    """What something unfinished is called. `owner` is that of an appliance, or "" as before they were told apart."""
    return f"{INCOMING_PREFIX}{owner}.{rest}" if owner else f"{INCOMING_PREFIX}{rest}"


def parse_incoming(name: str) -> tuple[str, str] | None:
    """The owner of something unfinished ("" for one of before), and the rest of its name; None for what is finished."""
    match = _INCOMING.fullmatch(name)
    return (match[1] or "", match[2]) if match else None


def require_name(name: str) -> str:
    """`name`, which is one component of a path. Raises ValueError where it is none, and could lead elsewhere."""
    if not name or name in (".", "..") or "/" in name or "\0" in name or len(os.fsencode(name)) > _LONGEST_NAME:
        raise ValueError(f"{name[:80]!r} is no name of a file or directory")
    return name


def require_stack_name(name: str) -> str:
    """`name`, as a stack can be called. Raises ValueError where it cannot."""
    if require_name(name) in RESERVED_STACK_NAMES:
        raise ValueError(f"no stack can be called {name}")
    return name


def require_path(path: str, stack: str = "") -> str:
    """`path`, as a data backup has it of `stack`, or of any: STACK, .mounts/STACK/NAME or .dumps/STACK[/NAME …].

    Raises:
        ValueError: it is another one, and could lead out of the backup or into another stack's part.
    """
    parts = path.split("/")
    for part in parts:
        require_name(part)
    of_mount, of_dump = parts[0] == MOUNTS and len(parts) == 3, parts[0] == DUMPS and len(parts) >= 2
    owner = parts[1] if of_mount or of_dump else path
    if require_stack_name(owner) != (stack or owner):
        raise ValueError(f"{path[:200]!r} is no part of a backup of {stack[:80]!r}")
    return path


def config_name(now: datetime) -> str:
    return f"configs-{now.strftime(_STAMP)}.tar.gz"


def secrets_name(now: datetime) -> str:
    return f"secrets-{now.strftime(_STAMP)}.tar.gz.age"


def data_name(now: datetime) -> str:
    return f"data-{now.strftime('%Y-%m-%d')}"


def replaced_name(name: str, now: datetime) -> str:
    """What a day's backup is called for the 24 hours after a newer one took its name."""
    return f"{name}.replaced-{now.strftime(_STAMP)}"


def _parse(text: str, pattern: str, zone: tzinfo) -> datetime:
    return datetime.strptime(text, pattern).replace(tzinfo=zone)
