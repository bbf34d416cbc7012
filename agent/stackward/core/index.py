r"""`stackward.json`: what a data backup says about itself, per stack.

Format 1 (`core/records`): keys that are not known are ignored, at every level. The file is JSON with sorted keys; names
that are not UTF-8 are escaped surrogates (`\\udcXX`), which `os.fsencode` turns back into the bytes. It is listed in
MANIFEST.sha256 like every other regular file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from stackward.core import records

FORMAT = 1


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """`path` is relative to the backup; `source` is where Compose said it was, `real_path` where it really was."""

    mount_name: str
    kind: str
    path: str
    source: str
    real_path: str
    volume: str | None
    snapshot: bool  # True: read from a Btrfs snapshot; False: copied while quiesced
    files: int
    bytes: int
    # What the next backup needs to look at changes alone: the source's snapshot that is kept on the volume, and what was left out.
    snapshot_name: str = ""
    left_out: tuple[str, ...] = ()
    # Of the directory that was read: where another one is in its place, a scan by size and time may not see what changed.
    inode: int = 0


@dataclass(frozen=True, slots=True)
class DumpEntry:
    service: str
    kind: str
    path: str


@dataclass(frozen=True, slots=True)
class StackEntry:
    """`at` is when the data stood still (UTC, ISO 8601); `run` the run that made it, wherever it was carried since."""

    stack: str
    project: str
    at: str
    run: str
    trees: tuple[TreeEntry, ...]
    dumps: tuple[DumpEntry, ...] = ()
    compose_sha256: str = ""
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    external_networks: tuple[str, ...] = ()
    standstill_seconds: float | None = None
    warnings: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    began: str = ""  # when its copying began, as `at`: whatever changed in its trees since has a later ctime
    incomplete: str = ""  # why it may lack trees that the stack has; it is never the backup that others may go for

    @property
    def prefixes(self) -> tuple[str, ...]:
        """The paths within the backup that belong to the stack."""
        return tuple(tree.path for tree in self.trees) + ((f".dumps/{self.stack}",) if self.dumps else ())


@dataclass(frozen=True, slots=True)
class Index:
    date: str
    created_at: str
    host: str
    stacks: dict[str, StackEntry]
    appliance: str = ""
    full_scan: bool = True
    requires: tuple[str, ...] = ()  # what a version must understand to make use of it

    def to_json(self) -> str:
        document = {"format": FORMAT, **asdict(self)}
        return json.dumps(document, indent=1, sort_keys=True) + "\n"


def parse_index(text: str) -> Index:
    """What the text says, as far as this version knows it.

    Raises:
        NewerRecordError: a newer version made it, and this one could misunderstand it.
        ValueError: the text is no index.
    """
    try:
        document = records.parse(text)
        records.require_understood(document, newest=FORMAT)
        return Index(
            date=document["date"],
            created_at=document["created_at"],
            host=document["host"],
            stacks={name: _stack(entry) for name, entry in document["stacks"].items()},
            appliance=document.get("appliance", ""),
            full_scan=document.get("full_scan", True),
            requires=records.requirements(document.get(records.REQUIRES, ())),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"stackward.json lacks what format {FORMAT} promises: {error!r}") from error


def _stack(entry: Mapping[str, Any]) -> StackEntry:
    found = records.known(StackEntry, entry)
    found["trees"] = tuple(
        TreeEntry(**{**records.known(TreeEntry, tree), "left_out": tuple(tree.get("left_out", ()))})
        for tree in entry["trees"]
    )
    found["dumps"] = tuple(DumpEntry(**records.known(DumpEntry, dump)) for dump in entry.get("dumps", ()))
    found["external_networks"] = tuple(entry.get("external_networks", ()))
    found["warnings"] = tuple(entry.get("warnings", ()))
    return StackEntry(**found)
