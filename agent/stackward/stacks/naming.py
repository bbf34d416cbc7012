"""Names for trees within a backup: readable, safe as a file name, the same from run to run."""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import PurePath

_SAFE = re.compile(rb"[A-Za-z0-9._][A-Za-z0-9._-]*")
_UNSAFE_RUN = re.compile(rb"[^A-Za-z0-9._-]+")
_LONGEST = 100


def slug(path: PurePath) -> str:
    """`config/db` -> `config+db`. Two paths never share one: what had to be altered gets a digest of the whole."""
    parts = [part for part in (os.fsencode(part) for part in path.parts) if part != b"/"]
    joined = b"+".join(parts)
    if parts and all(_SAFE.fullmatch(part) for part in parts) and len(joined) <= _LONGEST and parts[0] != b"..":
        return joined.decode("ascii")
    cleaned = b"+".join(_UNSAFE_RUN.sub(b"_", part).lstrip(b"-") for part in parts)[:_LONGEST].decode("ascii")
    return f"{cleaned or 'root'}~{digest(path)}"


def unique(name: str, path: PurePath, taken: Collection[str]) -> str:
    """`name`, or where another tree has it already, `name` with a digest of the tree's own path."""
    return name if name not in taken else f"{name}~{digest(path)}"


def digest(path: PurePath) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
