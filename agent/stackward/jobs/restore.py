"""restore: puts a stack, or a path of it, back as a backup holds it; or lays it down somewhere else.

Each file is checked while it is copied; one that is damaged is named and left out. What a restore replaces is kept for seven
days, for `--undo`.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from stackward.core.artifacts import DUMPS
from stackward.core.errors import ExitCode, RefusedError, SettingsError
from stackward.core.model import Counts, JobResult, Outcome, Stack, StackResult, display
from stackward.core.progress import Progress
from stackward.steps import catalog, quiesce
from stackward.steps.catalog import Artifact
from stackward.steps.restore import elsewhere, kept, restore_path, restore_plan, restore_tree, restoring, volumes
from stackward.steps.restore.restore_plan import Inside, Target
from stackward.steps.restore.restore_tree import Replacement
from stackward.steps.restore.restoring import Means, Swapped, require_docker
from stackward.steps.verification import check, checksums
from stackward.steps.verified_copy import Checksums, Copier
from stackward.tools import filesystem, rsync

_NAMED = 1000  # damaged files beyond this many are counted, not named


@dataclass(frozen=True, slots=True)
class Request:
    """What to restore: all of `stack`, or `path` in it; from the newest backup or the one `wanted` (a name or a date)."""

    stack: str
    path: str | None = None
    wanted: str | None = None
    to: Path | None = None
    overwrite: bool = False
    force: bool = False
    dry_run: bool = False


@dataclass(slots=True)
class _Done:
    """What came of it."""

    transfers: list[rsync.Transfer]
    notes: list[str]
    warnings: list[str]
    details: dict[str, Any]
    standstill_seconds: float | None = None
    left_out: list[str] = field(default_factory=list)  # files of the backup that are not as they were made

    def add(self, swapped: Swapped) -> None:
        self.transfers += swapped.transfers
        self.left_out += swapped.left_out
        self.notes += swapped.notes
        self.standstill_seconds = swapped.standstill_seconds


def run(request: Request, means: Means, discovery_stacks: Sequence[Stack]) -> JobResult:
    """Restore, or with `dry_run` say what would change. The caller holds the lock of the stack and shares BACKUP_ROOT's.

    Raises:
        RefusedError: the stack is gone, or others use its trees.
        DamageError: no file of a tree is good.
        SettingsError: what was asked for makes no sense.
        StackwardError, OSError: it failed; what was there is there again.
    """
    artifact = restore_plan.choose(catalog.catalog(means.settings, means.now), request.stack, request.wanted)
    stack = next((one for one in discovery_stacks if one.name == request.stack), None)
    done = _Done([], [], [], {"artifact": artifact.name.name, "dry_run": request.dry_run})
    if request.to is not None:
        _elsewhere(request, means, artifact, request.to, stack, done)
    elif stack is None:
        raise RefusedError(
            f"{display(request.stack)} is no stack under {display(means.settings.docker_root)}",
            hint=f"stackward restore config {display(request.stack)} brings its directory back; or --to DIR",
        )
    elif request.path is not None:
        _path(request, means, artifact, stack, done)
    else:
        _whole(request, means, artifact, stack, done)
    if not request.dry_run:
        kept.expire(means.kept, means.now)
    return _result(request, artifact, done)


def undo_last(stack: Stack, means: Means, *, dry_run: bool = False, force: bool = False) -> JobResult:
    """Put back what the last restore of `stack` replaced; what that had put there is kept for the rest of the week.

    With `dry_run`, say what would be put back.

    Raises:
        StackwardError: there is nothing to undo, or it is gone.
    """
    record = kept.latest(means.kept, stack.name)
    details: dict[str, Any] = {"dry_run": dry_run, **kept.told(record)}
    plan = quiesce.whole_stack(stack) if record.whole_stack else quiesce.Plan()
    if dry_run:
        stop = [container.name for container in plan.stop]
        return JobResult(Outcome.OK, details=details | kept.foretold(record) | {"stop": stop})
    if record.whole_stack and not force:
        require_docker(means, stack)
    with ExitStack() as held:
        for tree in stack.trees:
            if tree.driver_options and tree.volume is not None and means.docker is not None:
                volumes.place(means.docker, stack, tree.volume, held)
        still = held.enter_context(quiesce.quiesced(means.docker, means.undo, stack, plan, restoring.NO_LIMIT))
        changed = kept.put_back(means.kept, record, means.now)
    part = StackResult(stack.name, Outcome.OK, standstill_seconds=still.seconds)
    return JobResult(Outcome.OK, stacks=(part,), details=details | changed)


def _whole(request: Request, means: Means, artifact: Artifact, stack: Stack, done: _Done) -> None:
    found, homeless = restore_plan.targets(artifact, stack)
    done.notes += restore_plan.not_restored(artifact, stack, found, homeless)
    done.warnings += [f"{display(e.mount_name)} was not restored: the stack has no such tree now" for e in homeless]
    restoring.refuse_foreign(stack, found)
    if not found:
        raise RefusedError(
            f"{artifact.name.name} holds no tree that {display(stack.name)} has now", hint="use --to DIR"
        )
    if request.dry_run:
        _look_for_damage(means, artifact, [target.entry.path for target in found], done)
        done.details["trees"] = [restore_tree.described(target) for target in found]
        done.details["stop"] = [c.name for c in quiesce.whole_stack(stack).stop]
        return
    if not request.force:
        require_docker(means, stack)
    kept.discard_unfinished(means.kept, stack.name)
    running = means.docker.containers() if means.docker is not None else ()  # without those that hold volumes for us
    with ExitStack() as held:
        placed = [_placed(means, stack, target, held) for target in found]
        chosen = [restore_tree.replacement(target, means.run_id, means.settings) for target in placed]
        restoring.refuse_other_users(stack, chosen, running, force=request.force)

        def fill(one: Replacement, progress: Progress) -> restore_tree.Filled:
            path = os.fsencode(one.target.entry.path)
            return restore_tree.prepare(one, progress, _checksums(artifact, path, done), force=request.force)

        done.add(restoring.replace_trees(means, stack, _what(artifact, stack), chosen, fill))
    if not stack.running:
        done.notes.append(f"{display(stack.name)} was not running and was not started")


def _path(request: Request, means: Means, artifact: Artifact, stack: Stack, done: _Done) -> None:
    assert request.path is not None
    inside = restore_plan.locate(artifact, stack.name, request.path, stack.directory)
    target = next((t for t in restore_plan.targets(artifact, stack)[0] if t.entry == inside.entry), None)
    if target is None:
        name = display(inside.entry.mount_name)
        raise RefusedError(f"{name} is no tree of {display(stack.name)} any more", hint="use --to DIR")
    restoring.refuse_foreign(stack, [target])
    if request.dry_run:
        _look_for_damage(means, artifact, [os.path.normpath(f"{inside.entry.path}/{inside.path}")], done)
    with ExitStack() as held:
        place = target.place if request.dry_run else _placed(means, stack, target, held).place
        chosen = restore_path.plan(inside, place, overwrite=request.overwrite)
        done.details |= restoring.described_path(chosen)
        done.notes += restoring.path_notes(chosen)
        if not request.dry_run:
            of = _checksums_of_units(artifact, inside, done)
            what = _what(artifact, stack, str(inside.path))
            done.add(restoring.write_path(means, stack, what, chosen, of, force=request.force))


def _elsewhere(request: Request, means: Means, artifact: Artifact, to: Path, stack: Stack | None, done: _Done) -> None:
    """Copy out of the backup into `to`; nothing of the stack is touched."""
    to = Path(os.path.abspath(to))
    root = Path(os.path.realpath(means.settings.backup_root))
    if root in (real := Path(os.path.realpath(to)), *real.parents):
        raise SettingsError(f"{display(to)} is within BACKUP_ROOT", hint="restore to a directory elsewhere")
    if os.path.lexists(to) and not (os.path.isdir(to) and (request.overwrite or not os.listdir(to))):
        raise RefusedError(f"{display(to)} is there and not empty", hint="name a new directory, or add --overwrite")
    elsewhere.require_writable(to)
    inside = None
    if request.path is not None:
        inside = restore_plan.locate(artifact, request.stack, request.path, stack.directory if stack else None)
        paths = [os.path.normpath(f"{inside.entry.path}/{inside.path}")]
    else:
        paths = list(artifact.prefixes(request.stack))
    done.details["to"] = display(to)
    if request.dry_run:
        _look_for_damage(means, artifact, paths, done)
        done.details["paths"] = [display(path) for path in paths]
        return
    means.progress.step(f"copying {display(request.stack)} to {display(to)}", total_bytes=artifact.size_bytes)
    to.mkdir(parents=True, exist_ok=True)
    to = Path(os.path.realpath(to))
    copier = Copier(force=request.force, replace=True, on_bytes=lambda count: means.progress.advance(byte_count=count))
    if inside is not None:
        path = os.fsencode(os.path.normpath(f"{inside.entry.path}/{inside.path}"))
        restore_path.copy_out(inside, to, copier, _checksums(artifact, path, done))
    else:
        parts = [(entry.path, entry.mount_name) for entry in artifact.trees(request.stack)]
        dumps = f"{DUMPS}/{request.stack}"
        if artifact.place(dumps).is_dir():
            parts.append((dumps, "dumps"))
        for path_in_backup, name in parts:
            lines = _checksums(artifact, os.fsencode(path_in_backup), done)
            copier.copy(artifact.place(path_in_backup), to / name, lines, called=os.fsencode(name))
    filesystem.sync_filesystem(to)
    done.add(restoring.copied(copier, to))
    if warning := elsewhere.warning(to):
        done.warnings.append(warning)


def _look_for_damage(means: Means, artifact: Artifact, paths: Sequence[str], done: _Done) -> None:
    """For a dry run: what a restore would leave out."""
    report = check(artifact, means.progress, paths)
    done.notes += [f"{artifact.name.name}: {warning}" for warning in report.warnings]
    done.left_out += [f"{display(finding.path)} is {finding.fault}" for finding in report.findings]


def _checksums(artifact: Artifact, path: bytes, done: _Done) -> Checksums | None:
    lines = checksums(artifact, path)
    if lines is None:
        done.notes.append(f"{artifact.name.name}: no checksums: it cannot be verified")
        return None
    return Checksums(lines)


def _checksums_of_units(artifact: Artifact, inside: Inside, done: _Done) -> Callable[[bytes], Checksums | None]:
    """The checksums of any path in `inside`, which are read once."""
    tree, wanted = os.fsencode(inside.entry.path), os.fsencode(inside.path) if inside.path.parts else b""
    lines = checksums(artifact, b"/".join(filter(None, (tree, wanted))))
    if lines is None:
        done.notes.append(f"{artifact.name.name}: no checksums: it cannot be verified")
        return lambda _path: None
    held = [(b"/".join(filter(None, (wanted, path))), digest) for digest, path in lines]

    def of(path: bytes) -> Checksums:
        start = bisect_left(held, (path, ""))
        below = takewhile(lambda one: (one[0] + b"/").startswith(path + b"/"), _from(held, start, path))
        return Checksums((digest, one[len(path) + 1 :]) for one, digest in below)

    return of


def _from(held: Sequence[tuple[bytes, str]], start: int, path: bytes) -> Iterator[tuple[bytes, str]]:
    """The path itself and what is in it; names that only begin like it come in between (`a-b` before `a/b`)."""
    if start < len(held) and held[start][0] == path:
        yield held[start]
    for position in range(bisect_left(held, (path + b"/", "")), len(held)):
        yield held[position]


def _placed(means: Means, stack: Stack, target: Target, held: ExitStack) -> Target:
    """The target with the directory that its tree is now; a volume is made and mounted where it is not."""
    if target.volume is None or (os.path.isdir(target.place) and target.tree and not target.tree.driver_options):
        return target
    return replace(target, place=volumes.place(means.docker, stack, target.volume, held))


def _what(artifact: Artifact, stack: Stack, path: str = "") -> str:
    return f"restore of {display(stack.name)}{':' + display(path) if path else ''} from {artifact.name.name}"


def _result(request: Request, artifact: Artifact, done: _Done) -> JobResult:
    counts = Counts(
        files=sum(t.files for t in done.transfers),
        files_changed=sum(t.files_changed for t in done.transfers),
        bytes=sum(t.bytes for t in done.transfers),
        bytes_changed=sum(t.bytes_changed for t in done.transfers),
    )
    reasons = [*restoring.told_left_out(artifact.name.name, done.left_out, forced=request.force), *done.warnings]
    outcome = Outcome.WARN if reasons else Outcome.OK
    part = StackResult(request.stack, outcome, tuple(reasons), counts, done.standstill_seconds, artifact.name.name)
    return JobResult(
        outcome=outcome,
        reasons=tuple(reasons),
        stacks=() if request.dry_run else (part,),
        counts=counts,
        artifacts=(artifact.name.name,),
        exit_code=ExitCode.DAMAGED if done.left_out and not request.force else ExitCode.OK,
        details={**done.details, "not_restored": list(dict.fromkeys(done.notes)), "damaged": done.left_out[:_NAMED]},
    )
