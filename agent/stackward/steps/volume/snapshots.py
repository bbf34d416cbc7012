"""Read-only snapshots of the whole volume, in `<volume>/.stackward/snapshots/NAME`.

What is listed is whole: a snapshot is made under a name that no listing takes, with everything nested in it, set read-only,
and renamed. `.stackward`, `.nightly`, and nested subvolumes that are read-only (somebody else's snapshots) or that the
settings leave out, are not in it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

from stackward.core import gitignore, retention, snapshot_names
from stackward.core.errors import RefusedError, SettingsError, StackwardError
from stackward.core.model import Keep, display
from stackward.steps.backup.sources import NIGHTLY, OURS
from stackward.tools import btrfs, filesystem, holders, process
from stackward.tools.docker import Docker, DockerError

INCOMING = ".incoming-"
WAIT_SECONDS = 60.0
_RETRY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`label` is what somebody called it, "" for those that the schedule makes."""

    name: str
    path: Path
    when: datetime
    label: str = ""


@dataclass(frozen=True, slots=True)
class Deleted:
    """`cleaned` says that the space is free again; if not, `held_by` tells who still uses what was deleted, in words."""

    cleaned: bool
    held_by: tuple[str, ...] = ()


def require(volume: Path) -> None:
    """Raises RefusedError where no snapshot of the volume can be made, and says what would be needed."""
    if not volume.is_dir():
        raise RefusedError(f"there is no {display(volume)}", hint="STACKWARD_VOLUME names the Btrfs volume")
    mount = filesystem.mount_of(Path(os.path.realpath(volume)), filesystem.mounts())
    if mount.type != "btrfs":
        raise RefusedError(
            f"{display(volume)} is on {mount.type}, not on Btrfs: it cannot be snapshotted",
            hint="STACKWARD_VOLUME names the Btrfs volume; backups work without one",
        )
    if not filesystem.is_subvolume(volume):
        raise RefusedError(
            f"{display(volume)} is on Btrfs, but a directory of a larger subvolume",
            hint="snapshots are of whole subvolumes: mount one there (btrfs subvolume create)",
        )
    if os.statvfs(volume).f_flag & os.ST_RDONLY:
        raise RefusedError(
            f"{display(volume)} is mounted read-only", hint="dmesg says why, if it was not meant to be so"
        )


def usable(volume: Path) -> str:
    """Why the volume cannot be snapshotted, or ""."""
    try:
        require(volume)
    except RefusedError as error:
        return error.message
    return ""


def home_of(volume: Path) -> Path:
    return volume / OURS / "snapshots"


def listed(volume: Path, zone: tzinfo) -> tuple[Snapshot, ...]:
    """Oldest first."""
    home = home_of(volume)
    if not home.is_dir():
        return ()
    found = [
        Snapshot(name, home / name, *parsed)
        for name in os.listdir(home)
        if (parsed := snapshot_names.parse(name, zone)) and filesystem.is_subvolume(home / name)
    ]
    return tuple(sorted(found, key=lambda one: (one.when, one.name)))


def choose(snapshots: Sequence[Snapshot], wanted: str, *, only: bool = False) -> Snapshot:
    """The one of that name, or the newest with that label, or else that of that day or time.

    Raises:
        SettingsError: there is none, or there are several, and it is to be the `only` one.
    """
    for meant in (
        [one for one in snapshots if one.name == wanted],
        [one for one in snapshots if one.label == wanted != ""],
        [one for one in snapshots if snapshot_names.means(wanted, one.name)],
    ):
        if only and len(meant) > 1:
            several = ", ".join(one.name for one in meant)
            raise SettingsError(f"{display(wanted)} means several snapshots", hint=f"say which: {several}")
        if meant:
            return meant[-1]
    known = ", ".join(one.name for one in snapshots[-7:]) or "there are none"
    raise SettingsError(f"there is no snapshot {display(wanted)}", hint=f"the newest are: {known}")


def sweep(volume: Path) -> None:
    """Remove what killed runs left unfinished. The caller holds the volume's lock."""
    home = home_of(volume)
    if home.is_dir():
        for left in home.iterdir():
            if left.name.startswith(INCOMING) and filesystem.is_subvolume(left):
                btrfs.delete(left)


def create(
    volume: Path,
    now: datetime,
    *,
    label: str = "",
    skip: Sequence[str] = (),
    reached: Callable[[str], None] = lambda _point: None,
) -> Snapshot:
    """Make a snapshot of the volume with what is nested in it.

    Raises:
        RefusedError: the volume cannot be snapshotted.
        StackwardError: there is no room, or Btrfs could not do it. Nothing is left of it.
        ValueError: the label cannot be one.
    """
    require(volume)
    snapshot_names.name_for(now, label)
    incoming = _made(volume, f"{now:%Y%m%d%H%M%S}-{os.getpid()}", skip)
    reached("snapshot-made")
    when = now
    while True:
        final = home_of(volume) / snapshot_names.name_for(when, label)
        try:
            filesystem.rename_new(incoming, final)
        except FileExistsError:
            when += timedelta(seconds=1)
            continue
        filesystem.sync_path(final.parent)
        return Snapshot(final.name, final, when, label)


@contextmanager
def passing(volume: Path, skip: Sequence[str] = ()) -> Iterator[Path]:
    """A snapshot of now that is gone afterwards."""
    require(volume)
    path = _made(volume, f"passing-{os.getpid()}", skip)
    try:
        yield path
    finally:
        btrfs.delete(path)


def _made(volume: Path, name: str, skip: Sequence[str]) -> Path:
    home = home_of(volume)
    with explained(volume):
        if not (volume / OURS).exists():
            btrfs.create_subvolume(volume / OURS)
        home.mkdir(mode=0o700, exist_ok=True)
        incoming = home / f"{INCOMING}{name}"
        btrfs.sync(volume)
        try:
            btrfs.snapshot_all(volume, incoming, chosen(skip), read_only=True)
        except BaseException:
            btrfs.delete(incoming)
            raise
    return incoming


def chosen(skip: Sequence[str]) -> Callable[[btrfs.Nested], bool]:
    """Whether a nested subvolume belongs into a snapshot; `skip` are gitignore patterns of paths on the volume."""
    rules = gitignore.parse("\n".join(skip).encode("utf-8", "surrogateescape"))

    def belongs(nested: btrfs.Nested) -> bool:
        path = os.fsencode(nested.path)
        if nested.read_only or is_ours(nested.path):
            return False
        way = [path, *(os.fsencode(parent) for parent in nested.path.parents if parent.parts)]
        return not any(gitignore.decide(rules, one, is_directory=True) for one in way)

    return belongs


def is_ours(path: Path) -> bool:
    """Whether a path, relative to the volume, is where we or staging keep snapshots."""
    return path.parts[0] == OURS or path.parts[0].startswith(NIGHTLY)


def plan(snapshots: Sequence[Snapshot], keep: Keep, now: datetime) -> list[retention.Decision]:
    """Which snapshots stay, and why. One that somebody named stays until somebody deletes it, and takes no other's place."""
    items = [retention.Item(one.name, one.when) for one in snapshots]
    by_schedule = [item for item, one in zip(items, snapshots, strict=True) if not one.label]
    decided = {decision.item.key: decision for decision in retention.plan(by_schedule, keep, now)}
    named = ("held: somebody named it: `stackward snapshot delete` removes it",)
    return [decided.get(item.key) or retention.Decision(item, keep=True, reasons=named) for item in items]


def delete(
    path: Path,
    *,
    volume: Path,
    mounted: Callable[[Path], Sequence[str]] = lambda _path: (),
    wait_seconds: float = WAIT_SECONDS,
) -> Deleted:
    """Delete a subvolume with all nested in it, and wait until Btrfs has cleaned it up.

    `mounted` names the containers that have something of it mounted, which cannot always be seen from here.

    Raises:
        CommandError: it could not be deleted, also not after `wait_seconds` (somebody sends it meanwhile).
    """
    inside = [path, *(path / nested.path for nested in btrfs.nested_subvolumes(path))]
    seen = [one for one in inside if filesystem.is_subvolume(one)]
    identifiers = [btrfs.identifier_of(one) for one in seen]
    users = holders.holders(holders.device_of(one) for one in seen)  # afterwards nothing tells them any more
    by_container = tuple(mounted(path))
    _insist(path, wait_seconds)
    if btrfs.wait_until_cleaned(volume, identifiers, time_limit_seconds=wait_seconds):
        return Deleted(cleaned=True)
    alive = [str(user) for user in users if user.is_alive]
    return Deleted(cleaned=False, held_by=(*by_container, *alive))


def mounted_by(docker: Docker | None) -> Callable[[Path], list[str]]:
    """Names the running containers that have something below a path mounted."""

    def containers(path: Path) -> list[str]:
        try:
            found = docker.containers() if docker is not None else []
        except DockerError:
            return []
        real = Path(os.path.realpath(path))
        return [
            f"container {display(one.name)}: {display(mount.source)}"
            for one in found
            if one.runs
            for mount in one.mounts
            if mount.source and Path(mount.source).is_relative_to(real)
        ]

    return containers


def _insist(path: Path, limit_seconds: float) -> None:
    """While a subvolume is being sent it cannot be deleted (EPERM)."""
    deadline = time.monotonic() + limit_seconds
    while True:
        try:
            btrfs.delete(path)
        except process.CommandError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)
        else:
            return


@contextmanager
def explained(volume: Path) -> Iterator[None]:
    """Btrfs's errors as what a person can do something about."""
    try:
        yield
    except (process.CommandError, OSError) as error:
        said = error.stderr_tail if isinstance(error, process.CommandError) else str(error.strerror)
        if "No space left on device" in said or "Disk quota exceeded" in said:
            raise StackwardError(
                f"{display(volume)} has no room for a snapshot",
                hint="`btrfs filesystem usage` says whether data or metadata is full; delete snapshots, or balance",
            ) from error
        if "Read-only file system" in said:
            raise RefusedError(f"{display(volume)} is read-only", hint="dmesg says why") from error
        raise
