"""BACKUP_ROOT: is it there, is it the right disk, is there room, is it a disk of its own?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from stackward.core.artifacts import ID_FILE, ArtifactKind
from stackward.core.errors import RefusedError
from stackward.core.model import display
from stackward.core.units import format_bytes
from stackward.steps import backup_root, catalog
from stackward.steps.doctor import Facts, Finding, error, info, ok, warn
from stackward.tools import filesystem, small_files

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOM_TO_SPARE = 1.1
_ID_BYTES = 4096


def look(facts: Facts) -> Iterator[Finding]:
    root = facts.settings.backup_root
    try:
        backup_root.require(facts.settings)
    except RefusedError as refused:
        yield error("backups", refused.message, refused.hint)
        return
    if os.statvfs(root).f_flag & os.ST_RDONLY:
        yield error("backups", f"BACKUP_ROOT {display(root)} is mounted read-only", "look for disk errors; remount it")
    yield from _identity(facts)
    yield from _space(facts)
    yield from _btrfs(facts)
    yield from _same_disk(facts)
    yield from _damaged(facts)


def _identity(facts: Facts) -> Iterator[Finding]:
    root = facts.settings.backup_root
    remembered = _first_line(facts.settings.state_dir / backup_root.REMEMBERED)
    found = _first_line(root / ID_FILE)
    if remembered and found != remembered:
        what = "another ID file than" if found else "no ID file, unlike"
        yield error(
            "backups",
            f"BACKUP_ROOT {display(root)} has {what} the disk that was backed up to so far",
            "is the disk mounted? For a new disk on purpose remove "
            f"{display(facts.settings.state_dir / backup_root.REMEMBERED)}",
        )
    elif remembered:
        yield ok("backups", f"BACKUP_ROOT {display(root)} is the disk that it was")
    elif found:
        yield info("backups", f"BACKUP_ROOT {display(root)} has backups of before; they will be gone on with")
    else:
        yield ok("backups", f"BACKUP_ROOT {display(root)} is there; the first backup marks it with {ID_FILE}")


def _space(facts: Facts) -> Iterator[Finding]:
    settings = facts.settings
    free = filesystem.free_bytes(settings.backup_root)
    if free < settings.minimum_free_bytes:
        least = format_bytes(settings.minimum_free_bytes)
        yield error(
            "space",
            f"{format_bytes(free)} free in BACKUP_ROOT, {least} are the least",
            "make room (`stackward prune --replaced`), or lower STACKWARD_MINIMUM_FREE",
        )
    backed_up = {s for a in catalog.catalog(settings, facts.now) if a.kind is ArtifactKind.DATA for s in a.stacks}
    stacks = facts.discovery.stacks if facts.discovery else ()
    decided = [stack for stack in stacks if stack.opted_in] or list(stacks)
    paths = [tree.path for stack in decided if stack.name not in backed_up for tree in stack.covered_trees]
    if not paths:
        yield ok("space", f"{format_bytes(free)} free in BACKUP_ROOT")
        return
    need = facts.sizes.total(paths)
    text = f"a first backup takes {'' if need.complete else 'over '}{format_bytes(need.allocated_bytes)}"
    if need.allocated_bytes * _ROOM_TO_SPARE + settings.minimum_free_bytes > free:
        advice = "a larger disk, or stackward.backup.skip for what can be had elsewhere"
        yield error("space", f"{text}, and {format_bytes(free)} are free", advice)
    else:
        yield ok("space", f"{text}, and {format_bytes(free)} are free")


def _btrfs(facts: Facts) -> Iterator[Finding]:
    settings = facts.settings
    volume = settings.volume
    without = "trees are copied while their stack stands still, instead of from a snapshot taken in an instant"
    if not volume.is_dir():
        text = f"there is no Btrfs volume at {display(volume)}: {without}"
        yield info("btrfs", text, "if you have one elsewhere, set STACKWARD_VOLUME")
    elif filesystem.is_on_btrfs(volume):
        yield ok("btrfs", f"the volume {display(volume)} is Btrfs")
    else:
        kind = filesystem.mount_of(Path(os.path.realpath(volume)), facts.mounts).type
        yield info(
            "btrfs", f"{display(volume)} is {kind}, not Btrfs: {without}", "nothing, unless the standstill hurts"
        )
    if filesystem.is_on_btrfs(settings.backup_root):
        yield ok("btrfs", "BACKUP_ROOT is Btrfs: an unchanged stack costs nothing to back up again")
    else:
        yield info("btrfs", "BACKUP_ROOT is not Btrfs: days share unchanged files by hard links, which takes longer")


def _same_disk(facts: Facts) -> Iterator[Finding]:
    backup = _where(facts.settings.backup_root, facts)
    stacks = facts.discovery.stacks if facts.discovery else ()
    places = [facts.settings.docker_root, *(tree.path for stack in stacks for tree in stack.covered_trees)]
    shared = sorted({str(path) for path in places if _where(path, facts) & backup})
    if shared:
        more = f" and {len(shared) - 1} more" if len(shared) > 1 else ""
        yield warn(
            "backups",
            f"BACKUP_ROOT is on the same disk as {display(shared[0])}{more}: one broken disk takes both",
            "put BACKUP_ROOT on a disk of its own",
        )


def _where(path: Path, facts: Facts) -> frozenset[str]:
    """The file system of a path, and the disk below it where that can be told."""
    mount = filesystem.mount_of(Path(os.path.realpath(path)), facts.mounts)
    found = {mount.device}
    if mount.source.startswith("/dev/"):
        block = Path("/sys/class/block", os.path.basename(os.path.realpath(mount.source)))
        if block.exists():
            real = Path(os.path.realpath(block))
            found.add(f"disk {real.parent.name if (real / 'partition').exists() else real.name}")
    return frozenset(found)


def _damaged(facts: Facts) -> Iterator[Finding]:
    listed = {artifact.name.name for artifact in catalog.catalog(facts.settings, facts.now)}
    for name, verified in sorted(facts.store.verified().items()):
        if name in listed and verified.damaged:
            yield error(
                "backups",
                f"{display(name)} has {verified.damaged} damaged files",
                f"`stackward verify {display(name)}` names them; check the disk and the memory of this host",
            )


def _first_line(path: Path) -> str:
    try:
        return small_files.read(path, _ID_BYTES, follow=False).decode("ascii", "replace").partition("\n")[0].strip()
    except OSError:
        return ""
