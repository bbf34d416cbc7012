r"""`stackward.json`: what a data backup says about itself, per stack.

Format 1 (`core/records`): keys that are not known are ignored, at every level. The file is JSON with sorted keys; names
that are not UTF-8 are escaped surrogates (`\\udcXX`), which `os.fsencode` turns back into the bytes. It is listed in
MANIFEST.sha256 like every other regular file.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from stackward.core import artifacts, records
from stackward.core.artifacts import INDEX
from stackward.core.fields import Fields

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
        """The paths within the backup that belong to the stack. Raises ValueError where one of them is none of it."""
        paths = [tree.path for tree in self.trees] + ([f"{artifacts.DUMPS}/{self.stack}"] if self.dumps else [])
        return tuple(artifacts.require_path(path, self.stack) for path in paths)


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


def parse_index(text: str | bytes) -> Index:
    """What the text says, as far as this version knows it. It may have been written by anyone who can write to BACKUP_ROOT.

    Every path leads to where backups have that stack's parts, and every name is one; the rest is of its type, and told only.

    Raises:
        NewerRecordError: a newer version made it, and this one could misunderstand it.
        ValueError: the text is no index.
    """
    document = records.parse(text)
    records.require_understood(document, newest=FORMAT)
    found = Fields(document, INDEX)
    return Index(
        date=found.text("date"),
        created_at=found.instant("created_at"),
        host=found.text("host"),
        stacks={name: _stack(name, entry) for name, entry in found.mapping("stacks").items()},
        appliance=found.text("appliance", ""),
        full_scan=found.flag("full_scan", default=True),
        requires=records.requirements(document.get(records.REQUIRES, ())),
    )


def _stack(name: str, entry: object) -> StackEntry:
    found = Fields(records.known(StackEntry, entry), f"the stack {artifacts.require_stack_name(name)!r}")
    if found.text("stack") != name:
        raise ValueError(f"the stack {name!r} calls itself {found.text('stack')[:80]!r}")
    trees = tuple(_tree(name, tree) for tree in found.list("trees"))
    for what in ("path", "mount_name"):
        if len({getattr(tree, what) for tree in trees}) < len(trees):
            raise ValueError(f"the stack {name!r} has two trees of one {what}")
    return StackEntry(
        stack=name,
        project=found.text("project"),
        at=found.instant("at"),
        run=found.text("run"),
        trees=trees,
        dumps=tuple(_dump(name, dump) for dump in found.list("dumps", ())),
        compose_sha256=found.text("compose_sha256", ""),
        images={service: found.inner("images", service) for service in found.mapping("images", {})},
        external_networks=found.texts("external_networks", ()),
        standstill_seconds=found.seconds_or_none("standstill_seconds"),
        warnings=found.texts("warnings", ()),
        versions=found.words("versions"),
        began=found.instant("began", ""),
        incomplete=found.text("incomplete", ""),
    )


def _tree(stack: str, tree: object) -> TreeEntry:
    found = Fields(records.known(TreeEntry, tree), f"a tree of {stack!r}")
    path = artifacts.require_path(found.text("path"), stack)
    if path.startswith(f"{artifacts.DUMPS}/"):
        raise ValueError(f"{path[:200]!r} is no place of a tree")
    snapshot = found.text("snapshot_name", "")
    return TreeEntry(
        mount_name=artifacts.require_name(found.text("mount_name")),
        kind=found.text("kind"),
        path=path,
        source=found.text("source"),
        real_path=found.text("real_path"),
        volume=found.text_or_none("volume"),
        snapshot=found.flag("snapshot"),
        files=found.count("files"),
        bytes=found.count("bytes"),
        snapshot_name=artifacts.require_name(snapshot) if snapshot else "",
        left_out=found.texts("left_out", ()),
        inode=found.count("inode", 0),
    )


def _dump(stack: str, dump: object) -> DumpEntry:
    found = Fields(records.known(DumpEntry, dump), f"a dump of {stack!r}")
    path = artifacts.require_path(found.text("path"), stack)
    if not path.startswith(f"{artifacts.DUMPS}/{stack}/"):
        raise ValueError(f"{path[:200]!r} is no place of a dump")
    return DumpEntry(found.text("service"), found.text("kind"), path)
