"""A day's data backup while it is made, and how it takes its name.

The day grows in `.incoming-…` beside the backups. Where BACKUP_ROOT is on Btrfs it is a subvolume that begins as a snapshot
of the last backup; elsewhere it begins empty, and unchanged files become hard links to the last backup's. Either way nothing
that is listed is ever written into. Publishing is: index and manifest written, file system synced, names swapped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from stackward.core import artifacts, records
from stackward.core.index import Index, StackEntry, parse_index
from stackward.steps import backup_paths
from stackward.tools import btrfs, filesystem, manifest, process, small_files

_TOO_MANY_LINKS = "Too many links"


@dataclass(slots=True)
class Day:
    """The incoming directory of one run. `subvolume` says which of the two ways it is built.

    `origin` is the published backup that it began as a snapshot of, if it did.
    """

    root: Path
    path: Path
    subvolume: bool
    origin: Path | None = None

    def began_from(self, backup: Path | None) -> bool:
        """Whether it began as a snapshot of that backup: then an inode number means the same file in both."""
        return backup is not None and self.origin == backup

    def place(self, relative: str) -> Path:
        """Where the day has a part. Raises ValueError for what is none, RefusedError where a link is on the way."""
        return backup_paths.place(self.path, relative)

    def discard(self, relative: str) -> None:
        """Remove a part; it need not be there. A stack's directory of mounts goes with the last of them."""
        part = self.place(relative)
        filesystem.remove_tree(part)
        if part.parent.parent == self.path / artifacts.MOUNTS:
            with suppress(OSError):  # another is in it, or it is not there
                part.parent.rmdir()

    def fill(self, relative: str, backup: Path) -> None:
        """Make a part equal to that of a published backup: shared blocks on Btrfs, hard links elsewhere, else copies.

        Raises:
            CommandError: it could not be made whole.
        """
        self.discard(relative)
        if not backup_paths.has_plain(backup, relative):
            return
        source, target = backup / relative, self.place(relative)
        target.parent.mkdir(parents=True, exist_ok=True)
        copy: list[process.Argument] = ["cp", "--archive", "--no-target-directory"]
        if not self.subvolume:
            try:
                process.run([*copy, "--link", "--", source, target])
            except process.CommandError as error:
                if _TOO_MANY_LINKS not in error.stderr_tail:
                    raise
                filesystem.remove_tree(target)
            else:
                return
        process.run([*copy, "--reflink=auto", "--", source, target])

    def abandon(self) -> None:
        btrfs.delete_directory(self.path)


def begin(root: Path, name: str, run_id: str, base: Path | None, *, owner: str = "") -> Day:
    """A new incoming day, beginning from `base` (a published backup) where that costs nothing."""
    path = root / artifacts.incoming_name(owner, f"{name}-{run_id}")
    if not filesystem.is_on_btrfs(root):
        path.mkdir(mode=0o700)
        return Day(root, path, subvolume=False)
    if base is not None and filesystem.is_subvolume(base):
        btrfs.snapshot(base, path, read_only=False)
        backup_paths.drop_strangers(path)
        return Day(root, path, subvolume=True, origin=base)
    btrfs.create_subvolume(path)
    path.chmod(0o700)
    return Day(root, path, subvolume=True)


def publish(
    day: Day,
    name: str,
    index: Index,
    sections: Iterable[manifest.Section],
    now: datetime,
    reached: Callable[[str], None] = lambda _point: None,
    *,
    replacing: Callable[[str], None] = lambda _name: None,
    keep_replaced: bool = True,
    owner: str = "",
) -> Path:
    """Give the day its name. On return it is whole on disk, and listed; a power cut leaves the old one or the new one.

    A backup of that name is listed for 24 hours more under its `.replaced-…` name, which `replacing` is told before it gets
    it; unless `keep_replaced` is False.
    """
    _write_index(day.path, index)
    own = artifacts.INDEX.encode("ascii")
    line = manifest.format_line(manifest.hash_file(os.fsencode(day.path / artifacts.INDEX)), own)
    manifest.write(day.path / artifacts.MANIFEST, [*sections, manifest.Section(own, (line,))])
    filesystem.sync_filesystem(day.root)
    if day.subvolume:
        btrfs.set_read_only(day.path, read_only=True)
    reached("data-manifest")
    final = day.root / name
    if not os.path.lexists(final):
        filesystem.rename_new(day.path, final)
        filesystem.sync_path(day.root)
        return final
    replaced = _free_place(day.root, name, now)
    replacing(replaced.name)
    if filesystem.exchange(day.path, final):
        reached("data-exchanged")
        filesystem.rename_new(day.path, replaced)
    else:
        filesystem.rename_new(final, replaced)
        filesystem.rename_new(day.path, final)
    filesystem.sync_path(day.root)
    if not keep_replaced:
        retire(replaced, owner=owner)
    return final


def _free_place(root: Path, name: str, now: datetime) -> Path:
    """Where the replaced day goes; of two that are replaced within one second the later is stamped a second ahead."""
    place = root / artifacts.replaced_name(name, now)
    while os.path.lexists(place):
        now += timedelta(seconds=1)
        place = root / artifacts.replaced_name(name, now)
    return place


def rewrite_without(
    root: Path, name: str, stacks: Sequence[str], run_id: str, now: datetime, *, owner: str = ""
) -> None:
    """Publish the backup `name` again without some of its stacks, whose files go.

    Raises:
        ValueError: the backup has no index, or would be empty: then it is for `retire`.
    """
    backup = root / name
    index = read_index(backup)
    if index is None or not set(index.stacks) - set(stacks):
        raise ValueError(f"{name} cannot be rewritten without {', '.join(stacks)}")
    kept = {stack: entry for stack, entry in index.stacks.items() if stack not in stacks}
    day = begin(root, name, run_id, backup, owner=owner)
    try:
        if day.subvolume and filesystem.is_subvolume(backup):
            for stack in stacks:
                discard_stack(day, index.stacks[stack])
        else:
            for entry in kept.values():
                for prefix in entry.prefixes:
                    day.fill(prefix, backup)
        sections = carried_sections(backup, kept.values())
        publish(day, name, replace(index, stacks=kept), sections, now, keep_replaced=False, owner=owner)
    except BaseException:
        day.abandon()
        raise


def retire(backup: Path, reached: Callable[[str], None] = lambda _point: None, *, owner: str = "") -> None:
    """Take a backup out of the listing at once, then delete it."""
    trash = backup.with_name(artifacts.incoming_name(owner, f"trash-{backup.name}"))
    filesystem.rename_new(backup, trash)
    filesystem.sync_path(backup.parent)
    reached("prune-renamed")
    btrfs.delete_directory(trash)


def discard_stack(day: Day, entry: StackEntry) -> None:
    for prefix in entry.prefixes:
        day.discard(prefix)
    day.discard(f"{artifacts.DUMPS}/{entry.stack}")


def carried_sections(backup: Path, entries: Iterable[StackEntry]) -> list[manifest.Section]:
    """The lines of a published backup that belong to these stacks.

    Raises:
        OSError, ValueError: they cannot be read, or lines that belong to nothing of these stand between them.
    """
    lines = manifest.Sorted(backup / artifacts.MANIFEST)
    prefixes = [os.fsencode(prefix) for entry in entries for prefix in entry.prefixes]
    for prefix in prefixes:
        lines.require_whole(prefix)
    return [manifest.Section(prefix + b"/", (lines.below(prefix),)) for prefix in prefixes]


def read_index(backup: Path) -> Index | None:
    """The index of a published backup; None where there is none, or none that can be read."""
    try:
        return parse_index(small_files.read(backup / artifacts.INDEX, records.LARGEST_BYTES, follow=False))
    except (OSError, ValueError):
        return None


def _write_index(directory: Path, index: Index) -> None:
    filesystem.write_durably(directory / artifacts.INDEX, index.to_json().encode("ascii"))
