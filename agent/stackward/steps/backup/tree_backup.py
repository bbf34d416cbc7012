"""Brings one tree into a day: from the account of what changed where there is one, else by a full scan."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from stackward.config import Settings
from stackward.core import artifacts, gitignore
from stackward.core.errors import DiskFullError, StackwardError
from stackward.core.index import TreeEntry
from stackward.core.model import Stack, Tree
from stackward.core.patterns import rsync_filters
from stackward.steps.backup import apply_changes, changed_lines, changes, copying, sources, unseen
from stackward.steps.backup.day import Day
from stackward.steps.backup.sources import Source
from stackward.steps.restore import kept
from stackward.tools import btrfs, filesystem, manifest, process, rsync, sendstream, tree_root
from stackward.tools.tree_root import TreeRoot

ASKED_FOR = "a full scan was asked for"

Lines = tuple[manifest.Section, int, int]  # a tree's in the manifest, how many they are, how many of them are new


@dataclass(frozen=True, slots=True)
class TreeCopy:
    """A tree that is in the day. `scan` says why all of it was looked at; "" where `applied` names what changed.

    `lines` are then its lines of the manifest. `compared`: the content of all files was compared with the last backup's,
    since that was not to be trusted, nor are its checksums. `began`: when the scan did, in seconds since the epoch.
    """

    transfer: rsync.Transfer
    scan: str
    applied: apply_changes.Applied | None = None
    lines: Lines | None = None
    compared: bool = False
    began: float = 0.0


@dataclass(frozen=True, slots=True)
class Last:
    """The tree in its stack's newest good backup, which lies at `path`. `began` is "" where an older version made it.

    `suspect` says why it may be damaged although nothing is known against it, or "".
    """

    path: Path
    entry: TreeEntry
    began: str
    suspect: str = ""

    @property
    def part(self) -> Path:
        return self.path / self.entry.path

    @property
    def doubt(self) -> str:
        """Why what it holds may not be what was backed up, or ""."""
        if self.suspect or not filesystem.is_subvolume(self.path) or btrfs.is_read_only(self.path):
            return self.suspect
        return "its last backup was written to"

    @property
    def since(self) -> float | None:
        """When its copying began, in seconds since the epoch; None where that is not known."""
        return datetime.fromisoformat(self.began).timestamp() if self.began else None


def short(name: str) -> str:
    """A stack's name as part of a snapshot's: whatever the name is, this is a file name."""
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:8]


def left_out(tree: Tree, stack: Stack, settings: Settings) -> tuple[str, ...]:
    """What of the tree is left out, as git reads it: what a restore keeps for its undoing, and what the labels say."""
    ours = [f"/{sources.OURS}", f"/{sources.NIGHTLY}"] if tree.path == settings.volume else []
    inside = [
        p.relative_to(tree.path) for p in kept.places_of_ours(settings.state_dir / "kept") if tree.path in p.parents
    ]
    ours += ["/" + gitignore.literal(str(path)) for path in inside if "\n" not in str(path)]
    return (*ours, *stack.policy.exclude)


def copy(
    day: Day,
    source: Source,
    *,
    read_from: Path,
    snapshot: Path | None,
    nested: bool,
    last: Last | None,
    patterns: Sequence[str],
    full_scan: bool,
    on_progress: Callable[[int, int], None],
    on_scan: Callable[[], None] = lambda: None,
) -> TreeCopy:
    """Make the day's part of the tree equal to `read_from`, which is in `snapshot` or, where that is None, live.

    A link that stood in the tree's place, or on the way to it, is followed in neither. A snapshot that the tree's containers
    can put elsewhere, since the tree holds it, is read as if it were live where all of it is looked at.

    `nested`: the tree's subvolume has others in it. `on_scan` is called before all of it is looked at; only then `on_progress`
    is, with bytes and files so far.

    Raises:
        StackwardError, OSError: it is not.
    """
    began = filesystem.stamp()
    home = snapshot.parent if snapshot is not None else None
    elsewhere = day.subvolume and last is not None and not day.began_from(last.path)
    why = doubt(source, home, last, patterns, elsewhere=elsewhere, nested=nested)
    found, untold = None, ""
    if not why and snapshot is not None and last is not None and source.subvolume is not None:
        try:
            found = _account(source, source.subvolume, snapshot, last.entry)
            if not full_scan:
                return _by_changes(day, source, found, read_from, snapshot, last, patterns)
        except (StackwardError, OSError, ValueError) as error:
            if isinstance(error, DiskFullError):
                raise
            what = "told" if found is None else "copied"
            untold = f"what changed could not be {what}: {getattr(error, 'message', error)}"
    whys = [ASKED_FOR, untold] if full_scan else [why, untold]
    on_scan()
    is_live = snapshot is None or source.tree.path in snapshot.parents
    with tree_root.opened(read_from, live=is_live) as root:
        transfer, suspicion = _scan(day, source, root, snapshot, last, patterns, found, on_progress)
    return TreeCopy(
        transfer, "; ".join(dict.fromkeys(filter(None, [*whys, suspicion]))), compared=bool(suspicion), began=began
    )


def _scan(
    day: Day,
    source: Source,
    root: TreeRoot,
    snapshot: Path | None,
    last: Last | None,
    patterns: Sequence[str],
    found: changes.Changes | None,
    on_progress: Callable[[int, int], None],
) -> tuple[rsync.Transfer, str]:
    """Look at all of the tree. Returns what was copied, and why the contents were compared, or ""."""
    relative = str(source.tree.artifact_path)
    base, known = (last.path, (last.entry.files, last.entry.bytes)) if last is not None else (None, (0, 0))
    suspicion = _suspicion(last, root if found is None else None) if last is not None else ""
    compare = bool(suspicion)
    filters = rsync_filters(patterns)
    transfer = copying.first_pass(day, root, relative, base, filters, on_progress, known, compare=compare)
    if last is not None:
        place = day.place(relative)
        more = unseen.parted(root, place) if compare else _copy_unseen(place, root, snapshot, last, found)
        transfer = replace(transfer, bytes_changed=transfer.bytes_changed + more)
    return transfer, suspicion


def _copy_unseen(place: Path, root: TreeRoot, snapshot: Path | None, last: Last, found: changes.Changes | None) -> int:
    """After a full scan: copy what changed behind an unchanged size and time. Returns how many bytes that was."""
    if found is not None and snapshot is not None:
        return unseen.by_account(found, root, snapshot, place, last.part)
    if last.since is not None:
        return unseen.by_ctime(root, place, last.part, last.since)
    return 0


def _suspicion(last: Last, source: TreeRoot | None) -> str:
    """Why only the content can tell what has changed since the last backup, or "". `source` is given where no account is."""
    if last.doubt:
        return last.doubt
    if not copying.are_readable(last.path, last.entry.path):
        return "the checksums of its last backup cannot be read"
    if source is not None and last.entry.inode not in (0, os.fstat(source.descriptor).st_ino):
        return "another directory is in its place"
    return ""


def section(day: Day, relative: str, last: Last | None, made: TreeCopy) -> Lines:
    """The tree's manifest lines, how many they are, and how many are new."""
    if made.lines is not None:
        return made.lines
    return copying.section(day, relative, last.path if last is not None and not made.compared else None)


def entry(
    source: Source,
    made: TreeCopy,
    files: int,
    last: Last | None,
    snapshot: Path | None,
    patterns: Sequence[str],
) -> TreeEntry:
    tree = source.tree
    size = made.transfer.bytes
    if made.applied is not None and last is not None:
        size = max(0, last.entry.bytes + made.applied.bytes_grown)
    return TreeEntry(
        mount_name=tree.mount_name,
        kind=tree.kind.value,
        path=str(tree.artifact_path),
        source=str(tree.source),
        real_path=str(tree.path),
        volume=tree.volume,
        snapshot=source.subvolume is not None,
        files=files,
        bytes=size,
        snapshot_name=snapshot.name if snapshot else "",
        left_out=tuple(patterns),
        inode=os.stat(tree.path).st_ino,
    )


def doubt(
    source: Source,
    home: Path | None,
    last: Last | None,
    patterns: Sequence[str],
    *,
    elsewhere: bool,
    nested: bool,
) -> str:
    """Why the account of what changed would not do, or "".

    `home` has the snapshots that backups are read from, None where the tree cannot be snapshotted; `elsewhere`: the day
    begins as a snapshot of another backup than `last`; `nested`: the tree's subvolume has others in it.
    """
    if home is None or source.subvolume is None:
        return "it is not on the volume"
    if last is None:
        return "it is its first backup"
    before = last.entry
    doubts = {
        last.doubt: bool(last.doubt),
        "its last backup is not whole": not last.part.is_dir(),
        "the day did not begin as a snapshot of its last backup": elsewhere,
        "the snapshot of its last backup is not there": not _is_there(home, before),
        "it has moved": before.real_path != str(source.tree.path),
        "what is left out has changed": tuple(before.left_out) != tuple(patterns),
        "subvolumes are nested in it": nested,
    }
    return next((why for why, holds in doubts.items() if holds), "")


def _is_there(home: Path, before: TreeEntry) -> bool:
    return bool(before.snapshot_name) and filesystem.is_subvolume(home / before.snapshot_name)


def _account(source: Source, subvolume: Path, snapshot: Path, before: TreeEntry) -> changes.Changes:
    """Where the tree changed since its last backup."""
    old = snapshot.with_name(before.snapshot_name)
    if not btrfs.is_read_only(old):
        raise process.CommandError(["btrfs", "send", old], 1, "the snapshot of the last backup was written to")
    tree = os.fsencode(source.tree.path.relative_to(subvolume))
    return changes.account(sendstream.changes_between(old, snapshot), b"" if tree == b"." else tree)


def _by_changes(
    day: Day,
    source: Source,
    found: changes.Changes,
    read_from: Path,
    snapshot: Path,
    last: Last,
    patterns: Sequence[str],
) -> TreeCopy:
    with tree_root.opened(read_from, live=False):  # nothing in a snapshot changes: what is no link now, is none
        pass
    rules = gitignore.parse("\n".join(patterns).encode("utf-8", "surrogateescape"))
    relative = str(source.tree.artifact_path)
    if not day.subvolume:
        day.fill(relative, last.path)
    place, linked = day.place(relative), not day.subvolume
    before_it = None if linked else snapshot.with_name(last.entry.snapshot_name)
    applied = apply_changes.apply(found, read_from, snapshot, place, rules, before=before_it, linked=linked)
    transfer = rsync.Transfer(
        files=0,
        files_changed=len(applied.copied),
        files_deleted=len(applied.gone),
        bytes=0,
        bytes_changed=applied.bytes_changed,
        vanished=False,
    )
    lines = manifest.Sorted(last.path / artifacts.MANIFEST)
    made = changed_lines.section(day, relative, last.path, lines, last.entry.files, applied)
    return TreeCopy(transfer, "", applied, made)
