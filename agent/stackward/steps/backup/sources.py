"""Where a stack's trees are read from: a snapshot where Btrfs holds them, the live directory elsewhere.

Snapshots for a backup live in `<volume>/.stackward/backup/`, named after their run, and are gone when it ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stackward.core.model import Tree
from stackward.tools import btrfs, filesystem

OURS = ".stackward"
NIGHTLY = ".nightly"


@dataclass(frozen=True, slots=True)
class Subvolume:
    """A subvolume to snapshot; `nested` are the paths (relative to it) of those that lie within the trees."""

    root: Path
    nested: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """A tree and the subvolume that it can be snapshotted with; None: it is copied live, and again while quiesced."""

    tree: Tree
    subvolume: Path | None
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    sources: tuple[Source, ...]
    subvolumes: tuple[Subvolume, ...]

    @property
    def live(self) -> tuple[Source, ...]:
        return tuple(source for source in self.sources if source.subvolume is None)

    def has_nested(self, source: Source) -> bool:
        """Whether the snapshot that it is read from is put together from several subvolumes."""
        return any(one.nested for one in self.subvolumes if one.root == source.subvolume)

    @property
    def one_snapshot(self) -> bool:
        """Whether a single snapshot, made in one instant, holds all that the stack can write."""
        written = [source for source in self.sources if source.tree.writable]
        roots = {source.subvolume for source in written}
        nested = any(subvolume.nested for subvolume in self.subvolumes)
        return not written or (len(roots) == 1 and None not in roots and not nested)


def plan(trees: Sequence[Tree], volume: Path, table: tuple[filesystem.Mount, ...]) -> Plan:
    """Only what lies on the volume's own file system is snapshotted: elsewhere there is no place for the snapshots."""
    home = _device(volume, table)
    sources = tuple(_source(tree, home, table) for tree in trees)
    roots = sorted({source.subvolume for source in sources if source.subvolume is not None})
    return Plan(sources, tuple(Subvolume(root, _nested_within(root, sources)) for root in roots))


def any_snapshotted(trees: Sequence[Tree], volume: Path, table: tuple[filesystem.Mount, ...]) -> bool:
    """Whether a plan for them would have a subvolume; quicker than the plan."""
    home = _device(volume, table)
    return any(_source(tree, home, table).subvolume is not None for tree in trees)


@contextmanager
def snapshots_home(volume: Path, keep: set[str]) -> Iterator[Path]:
    """The directory of the snapshots that backups are read from. Call it under the backups lock only.

    On entry and on leaving it holds those that `keep` names (the caller may change it meanwhile), and no others.
    """
    home = home_of(volume)
    if not (volume / OURS).exists():
        btrfs.create_subvolume(volume / OURS)
    home.mkdir(mode=0o700, exist_ok=True)
    _clear(home, keep)
    try:
        yield home
    finally:
        _clear(home, keep)


def has_home(volume: Path) -> bool:
    """Whether a backup was ever read from snapshots there; some may be left."""
    return home_of(volume).is_dir()


def home_of(volume: Path) -> Path:
    """Where snapshots for backups are on a volume, or would be."""
    return volume / OURS / "backup"


def _clear(home: Path, keep: set[str]) -> None:
    for left in home.iterdir():
        if left.name not in keep and filesystem.is_subvolume(left):
            btrfs.delete(left)


def take(chosen: Plan, home: Path, label: str) -> dict[Path, Path]:
    """Snapshot every subvolume of the plan, one right after the other. Returns subvolume root -> snapshot."""
    taken = {}
    for number, subvolume in enumerate(chosen.subvolumes):
        target = home / f"{label}-{number}"
        btrfs.snapshot_with_nested(subvolume.root, target, subvolume.nested)
        taken[subvolume.root] = target
    return taken


def read_path(source: Source, taken: dict[Path, Path]) -> Path:
    """Where the tree is to be read now."""
    if source.subvolume is None:
        return source.tree.path
    return taken[source.subvolume] / source.tree.path.relative_to(source.subvolume)


def _device(volume: Path, table: tuple[filesystem.Mount, ...]) -> str:
    """The volume's file system, or "" where it is no Btrfs that can hold snapshots."""
    if not volume.is_dir():
        return ""
    mount = filesystem.mount_of(volume, table)
    return mount.device if mount.type == "btrfs" and "rw" in mount.options else ""


def _source(tree: Tree, home: str, table: tuple[filesystem.Mount, ...]) -> Source:
    mount = filesystem.mount_of(tree.path, table)
    if mount.type != "btrfs" or not home:
        return Source(tree, None, f"on {mount.type}: copied live, then again while quiesced")
    if mount.device != home:
        return Source(tree, None, "on another Btrfs than the volume: copied live, then again while quiesced")
    if any(tree.path in other.point.parents for other in table):
        return Source(tree, None, "another file system is mounted below it: copied live, then again while quiesced")
    root = btrfs.subvolume_of(tree.path, table)
    if root is None:
        return Source(tree, None, "its subvolume is not visible here: copied live, then again while quiesced")
    return Source(tree, root, "read from a snapshot")


def _nested_within(root: Path, sources: Sequence[Source]) -> tuple[Path, ...]:
    """Writable subvolumes inside the trees: read-only ones are snapshots that somebody else keeps."""
    trees = [source.tree.path for source in sources if source.subvolume == root]
    found = []
    for nested in btrfs.nested_subvolumes(root):
        path = root / nested.path
        if nested.path.parts[0] in (OURS, NIGHTLY) or not any(tree in path.parents for tree in trees):
            continue
        if filesystem.is_subvolume(path) and not _read_only(path):
            found.append(nested.path)
    return tuple(found)


def _read_only(path: Path) -> bool:
    try:
        return btrfs.is_read_only(path)
    except btrfs.UntoldError:
        return True  # gone meanwhile, or not ours to read: the stub stays
