"""restore-config: puts configuration and secrets back from a tarball and its capsule.

The backup is read and compared first; then what differs is unpacked beside its place, what was there is moved aside for
seven days, and the new takes its name. Files that the backup doesn't have are left alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from stackward.config import Settings
from stackward.core.artifacts import ArtifactKind
from stackward.core.errors import RefusedError, SettingsError, StackwardError
from stackward.core.model import Counts, JobResult, Outcome, display
from stackward.core.progress import Progress
from stackward.steps import catalog, config_archives, signing
from stackward.steps.catalog import Artifact
from stackward.steps.crashpoints import reach
from stackward.steps.restore import config_restore, elsewhere, kept
from stackward.steps.restore.config_restore import Item, State, Unit, above
from stackward.steps.restore.restore_tree import carry_out
from stackward.steps.undo import Undo
from stackward.tools import archive, beneath, filesystem, host_files, unpack
from stackward.tools.docker import Docker

SUBJECT = ""  # the configuration, among the records of what is kept
_LISTED = 500


@dataclass(frozen=True, slots=True)
class _Source:
    """An archive to restore from, and the identity that opens it if it is a capsule."""

    opened: config_archives.Opened
    identity: Path

    @property
    def name(self) -> str:
        return self.opened.artifact.name.name

    def plain(self) -> AbstractContextManager[IO[bytes]]:
        return self.opened.plain(self.identity)


@dataclass(frozen=True, slots=True)
class _Planned:
    source: _Source
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """What to restore.

    All of DOCKER_ROOT or the directories `stacks`, from the newest config backup or the one
    `wanted` (a name or a date).

    `secrets` adds the capsule that was made with it, opened with `identity` (default: the appliance's own key). `to` is a new
    or empty directory that takes DOCKER_ROOT's place. `only_missing` leaves files alone that differ. With `unsigned`, secrets
    from outside DOCKER_ROOT are restored also from a capsule that this appliance did not sign.
    """

    wanted: str | None = None
    stacks: tuple[str, ...] = ()
    secrets: bool = False
    identity: Path | None = None
    to: Path | None = None
    only_missing: bool = False
    unsigned: bool = False
    force: bool = False
    dry_run: bool = False


@dataclass(slots=True)
class _Done:
    """What is to be said beside the changes; `notes` are no warnings."""

    warnings: list[str]
    notes: list[str]


def run(
    request: Request, *, settings: Settings, undo: Undo, now: datetime, run_id: str, progress: Progress
) -> JobResult:
    """Restore, or with `dry_run` say what would change, file by file. The caller shares BACKUP_ROOT's lock.

    Raises:
        RefusedError: the backup is damaged (unless `force`), `to` is not empty, or the identity is the wrong one.
        StackwardError: there is no such backup, or nothing of these stacks in it; or it failed, and what was there is there.
    """
    done = _Done([], [])
    with ExitStack() as held:
        sources = _sources(settings, request, done, now, held)
        root = _root(settings, request)
        planned = [_plan(source, root, settings, request, progress) for source in sources]
        items = list({item.place: item for plan in planned for item in plan.items}.values())
        if not items:
            wanted = ", ".join(map(display, request.stacks)) or "any stack"
            raise StackwardError(f"{sources[0].name} holds nothing of {wanted}")
        if request.secrets and request.stacks:
            done.notes += _missing_outside(sources[-1], items)
        if not request.dry_run and any(item.is_wanted for item in items):
            done.warnings += _carry_out(planned, root, settings, undo, now, run_id, progress)
            if request.to is not None and (warning := elsewhere.warning(root)):
                done.warnings.append(warning)
    return _result(request, sources, items, done)


def put_back(
    *, settings: Settings, docker: Docker | None, force: bool, now: datetime, dry_run: bool = False
) -> JobResult:
    """Undo the newest restore of configuration, or with `dry_run` say what that would change.

    Raises:
        RefusedError: it would take a directory away from running containers (unless `force`).
        StackwardError: there is none, or what was kept is gone.
    """
    directory = settings.state_dir / "kept"
    record = kept.latest(directory, SUBJECT)
    details: dict[str, Any] = {"dry_run": dry_run, **kept.told(record)}
    if dry_run:
        return JobResult(Outcome.OK, details=details | kept.foretold(record))
    if not force:
        _refuse_in_use([Path(entry.place) for entry in record.entries if not entry.identity], docker)
    return JobResult(Outcome.OK, details=details | kept.put_back(directory, record, now))


def _refuse_in_use(places: Sequence[Path], docker: Docker | None) -> None:
    """What the restore made anew goes with the undo, and with it what was put there since."""
    if not places:
        return
    if docker is None:
        raise RefusedError(
            "no Docker Engine answers: it is not known whether containers use what would be taken away",
            hint="start Docker, or add --force if nothing runs",
        )
    for container in docker.containers():
        sources = [Path(mount.source) for mount in container.mounts if mount.source]
        used = next((p for p in places if any(p == source or p in source.parents for source in sources)), None)
        if used is not None and container.runs:
            raise RefusedError(
                f"{container.name} runs on {display(used)}, which the undo would take away",
                hint=f"stop it first (docker stop {container.name}), or add --force",
            )


def _sources(settings: Settings, request: Request, done: _Done, now: datetime, held: ExitStack) -> list[_Source]:
    artifacts = catalog.catalog(settings, now)
    chosen = _choose([a for a in artifacts if a.kind is ArtifactKind.CONFIG], request.wanted)
    identity = request.identity or settings.config_dir / config_archives.IDENTITY
    found = [_opened(settings, chosen, request, done, identity, held)]
    if not request.secrets:
        done.notes.append("secrets are not in it: --secrets restores them from the capsule")
        return found
    capsules = [a for a in artifacts if a.kind is ArtifactKind.SECRETS and a.name.when <= chosen.name.when]
    if not capsules:
        raise StackwardError(f"there is no secrets capsule that belongs to {chosen.name.name}")
    capsule = max(capsules, key=lambda artifact: artifact.name.when)
    if capsule.name.when != chosen.name.when:
        done.warnings.append(f"the secrets are those of {capsule.name.name}, the newest from before the tarball")
    return [*found, _opened(settings, capsule, request, done, identity, held)]


def _opened(
    settings: Settings, artifact: Artifact, request: Request, done: _Done, identity: Path, held: ExitStack
) -> _Source:
    """Raises RefusedError where it is damaged, unless `force`."""
    found = held.enter_context(config_archives.opened(settings, artifact))
    name = artifact.name.name
    if found.warning:
        done.notes.append(f"{name}: {found.warning}")
    if not found.signer.trusted:
        done.notes.append(f"{name} is signed by {found.signer}, not by this appliance")
    if found.damage:
        what = f"{name} is damaged: {found.damage}"
        if not request.force:
            raise RefusedError(what, hint="take an older one (`stackward list`), or --force to try all the same")
        done.warnings.append(what)
    return _Source(found, identity)


def _choose(backups: Sequence[Artifact], wanted: str | None) -> Artifact:
    """The newest config backup, or that of a name, or the newest of a date."""
    if not backups:
        raise StackwardError("there is no config backup", hint="`stackward backup --config` makes one")
    if wanted is None:
        return backups[0]
    for backup in backups:
        if wanted in (backup.name.name, f"{backup.name.when:%Y-%m-%d}"):
            return backup
    dates = list(dict.fromkeys(f"{backup.name.when:%Y-%m-%d}" for backup in backups))
    raise SettingsError(f"there is no config backup {display(wanted)}", hint=f"--from one of: {', '.join(dates[:7])}")


def _root(settings: Settings, request: Request) -> Path:
    if request.to is None:
        return Path(os.path.realpath(settings.docker_root))
    root = Path(os.path.realpath(request.to))
    if os.path.lexists(root) and (not root.is_dir() or os.listdir(root)):
        raise RefusedError(f"{display(root)} is there and not empty", hint="name a directory that is new or empty")
    elsewhere.require_writable(root)
    return root


def _plan(source: _Source, root: Path, settings: Settings, request: Request, progress: Progress) -> _Planned:
    progress.step(f"comparing {source.name}")
    wanted = {os.fsencode(stack) for stack in request.stacks}
    with source.plain() as plain:
        outside = _outside(source, settings, request)
        compared = config_restore.compare(plain, root, wanted, outside, elsewhere=request.to is not None)
        items = config_restore.with_links(list(compared))
    if not source.opened.signer.trusted and not request.unsigned:
        own = signing.key_file(settings).parent
        items = [item for item in items if own not in Path(os.fsdecode(item.place)).parents]
    if request.only_missing:
        items = [replace(i, state=State.LEFT) if i.state is State.CHANGED else i for i in items]
    return _Planned(source, tuple(items))


def _outside(source: _Source, settings: Settings, request: Request) -> Callable[[Path], str] | None:
    """Says of a file from outside DOCKER_ROOT why it is not restored; None where the archive holds none."""
    if source.opened.artifact.kind is not ArtifactKind.SECRETS:
        return None
    if not source.opened.signer.trusted and not request.unsigned:
        return lambda _place: f"{source.name} is signed by {source.opened.signer}: --unsigned restores it all the same"
    seen = host_files.here(settings, opened=(signing.key_file(settings).parent,))
    return seen.refusal


def _missing_outside(capsule: _Source, items: Sequence[Item]) -> list[str]:
    """Secrets from outside DOCKER_ROOT are no one stack's: to name stacks leaves them out, which a stack may not start for."""
    chosen = {item.path for item in items}
    with capsule.plain() as plain:
        members = (member for member, _ in archive.contents(plain) if not member.is_directory)
        paths = [archive.plain_name(member.name) for member in members]
    outside = [path for path in paths if path.startswith(config_restore.OUTSIDE) and path not in chosen]
    places = [path.removeprefix(config_restore.OUTSIDE[:-1]) for path in outside]
    return [
        f"{display(place)} is not there, and not restored with a single stack: `restore config .outside --secrets` does"
        for place in places
        if not os.path.lexists(place)
    ]


def _carry_out(
    planned: Sequence[_Planned],
    root: Path,
    settings: Settings,
    undo: Undo,
    now: datetime,
    run_id: str,
    progress: Progress,
) -> list[str]:
    """Unpack beside, then swap names. Whatever fails or kills this: the old files, or the new ones. Returns what was left out."""
    directory = settings.state_dir / "kept"
    kept.discard_unfinished(directory, SUBJECT)
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    units = config_restore.units([item for plan in planned for item in plan.items], root, run_id)
    homes = sorted({unit.home for unit in units})
    record = kept.Record(
        run=run_id,
        at=now.isoformat(),
        subject=SUBJECT,
        what=f"restore of configuration from {planned[0].source.name}",
        entries=config_restore.entries(units),
        directories=tuple(map(str, homes)),
    )
    kept.write(directory, record)
    left_out: list[str] = []
    try:
        for home in homes:
            left_out += _unpack(planned, [unit for unit in units if unit.home == home], home, root, settings, progress)
        units = config_restore.unpacked(units)
        record = replace(record, entries=config_restore.entries(units))
        kept.write(directory, record)
        progress.step("swapping configuration")
        with undo.promised(record.what, config_restore.ways_back(units), only_on_error=True):
            carry_out(config_restore.moves_aside(units))
            reach("restore-aside", settings.crash_point)
            carry_out(config_restore.moves_in(units))
            kept.write(directory, replace(record, done=True))
            reach("restore-copied", settings.crash_point)
    except BaseException:
        kept.discard_unfinished(directory, SUBJECT)
        raise
    for home in homes:
        filesystem.remove_tree(home / "new")
    kept.expire(directory, now)
    return left_out


def _unpack(
    planned: Sequence[_Planned], units: Sequence[Unit], home: Path, root: Path, settings: Settings, progress: Progress
) -> list[str]:
    """Everything of `units` into `home`/new, durably: each archive by itself, then the later ones into the first."""
    new = home / "new"
    beneath.make_directories(new)
    paths = {unit.path for unit in units}
    room = max(0, filesystem.free_bytes(new) - settings.minimum_free_bytes)
    left_out: list[unpack.LeftOut] = []
    for number, plan in enumerate(planned):
        wanted = {item.path for item in plan.items if item.is_wanted and not paths.isdisjoint(above(item.path))}
        if not wanted:
            continue
        progress.step(f"unpacking {plan.source.name}", total_files=len(wanted))
        alone = home / f"archive-{number}"
        beneath.make_directories(alone)
        with plan.source.plain() as plain:
            left_out += unpack.unpack(
                plain,
                alone,
                wanted.__contains__,
                privileged=lambda path, member: config_restore.had_before(root, path, member),
                most_bytes=room,
            )
        left_out += unpack.merge(alone, new)
        filesystem.remove_tree(alone)
    filesystem.sync_filesystem(new)
    return [f"{display(os.fsdecode(one.name))}: {one.why}" for one in left_out]


def _result(request: Request, sources: Sequence[_Source], items: Sequence[Item], done: _Done) -> JobResult:
    by_state = {state: [item for item in items if item.state is state] for state in State}
    changed = by_state[State.NEW] + by_state[State.CHANGED]
    left = [f"{display(item.path)} is left as it is: {item.why}" for item in by_state[State.LEFT] if item.why]
    warnings = [*done.warnings, *left]
    tops = sorted({display(item.path.split(b"/")[0]) for item in changed})
    if changed and request.to is None and not request.dry_run:
        done.notes.append("running containers go on with what they had: restart the stacks that changed")
    details: dict[str, Any] = {
        "artifacts": [source.name for source in sources],
        "dry_run": request.dry_run,
        "same": len(by_state[State.SAME]),
        "changed_stacks": tops,
        "notes": done.notes,
    }
    for name, state in (
        ("new", State.NEW),
        ("changed", State.CHANGED),
        ("left", State.LEFT),
        ("directories", State.DIFFERENT),
    ):
        details[name] = [display(item.path) for item in by_state[state][:_LISTED]]
        details[f"{name}_in_all"] = len(by_state[state])
    return JobResult(
        outcome=Outcome.WARN if warnings else Outcome.OK,
        reasons=tuple(warnings),
        counts=Counts(files=len(items), files_changed=len(changed)),
        artifacts=tuple(source.name for source in sources),
        details=details,
    )
