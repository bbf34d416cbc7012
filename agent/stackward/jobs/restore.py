"""restore: puts a stack, or a path of it, back as a backup holds it; or lays it down somewhere else.

The backup is verified first, as far as it is needed. What a restore replaces is kept for seven days, for `--undo`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stackward.core.artifacts import DUMPS
from stackward.core.errors import ExitCode, RefusedError, SettingsError
from stackward.core.model import Counts, JobResult, Outcome, Stack, StackResult, display
from stackward.steps import catalog, quiesce
from stackward.steps.catalog import Artifact
from stackward.steps.restore import elsewhere, kept, restore_path, restore_plan, restore_tree, restoring, volumes
from stackward.steps.restore.restore_plan import Target
from stackward.steps.restore.restoring import Means, require_docker
from stackward.steps.verification import check
from stackward.tools import filesystem, rsync


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


def run(request: Request, means: Means, discovery_stacks: Sequence[Stack]) -> JobResult:
    """Restore, or with `dry_run` say what would change. The caller holds the lock of the stack and shares BACKUP_ROOT's.

    Raises:
        RefusedError: the backup is damaged, the stack is gone or somebody else uses its trees.
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
    _verify(request, means, artifact, [target.entry.path for target in found], done)
    if not found:
        raise RefusedError(
            f"{artifact.name.name} holds no tree that {display(stack.name)} has now", hint="use --to DIR"
        )
    if request.dry_run:
        done.details["trees"] = [restore_tree.described(target) for target in found]
        done.details["stop"] = [c.name for c in quiesce.whole_stack(stack).stop]
        return
    if not request.force:
        require_docker(means, stack)
    kept.discard_unfinished(means.kept, stack.name)
    if means.docker is not None and not request.force:
        restore_plan.refuse_other_users(stack, found, means.docker.containers())
    with ExitStack() as held:
        placed = [_placed(means, stack, target, held) for target in found]
        chosen = [restore_tree.replacement(target, means.run_id) for target in placed]
        swapped = restoring.replace_trees(means, stack, _what(artifact, stack), chosen, restore_tree.prepare)
    done.transfers += swapped.transfers
    done.standstill_seconds = swapped.standstill_seconds
    if not stack.running:
        done.notes.append(f"{display(stack.name)} was not running and was not started")


def _path(request: Request, means: Means, artifact: Artifact, stack: Stack, done: _Done) -> None:
    assert request.path is not None
    inside = restore_plan.locate(artifact, stack.name, request.path, stack.directory)
    target = next((t for t in restore_plan.targets(artifact, stack)[0] if t.entry == inside.entry), None)
    if target is None:
        name = display(inside.entry.mount_name)
        raise RefusedError(f"{name} is no tree of {display(stack.name)} any more", hint="use --to DIR")
    _verify(request, means, artifact, [os.path.normpath(f"{inside.entry.path}/{inside.path}")], done)
    with ExitStack() as held:
        place = target.place if request.dry_run else _placed(means, stack, target, held).place
        chosen = restore_path.plan(inside, place, overwrite=request.overwrite)
        done.details |= restoring.described_path(chosen)
        done.notes += restoring.path_notes(chosen)
        if not request.dry_run:
            transfer = restoring.write_path(means, stack, _what(artifact, stack, str(inside.path)), chosen)
            done.transfers += [transfer] if transfer else []


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
    _verify(request, means, artifact, paths, done)
    done.details["to"] = display(to)
    if request.dry_run:
        done.details["paths"] = [display(path) for path in paths]
        return
    means.progress.step(f"copying {display(request.stack)} to {display(to)}", total_bytes=artifact.size_bytes)
    to.mkdir(parents=True, exist_ok=True)
    if inside is not None:
        done.transfers.append(restore_path.copy_out(inside, to))
    else:
        for entry in artifact.trees(request.stack):
            done.transfers.append(rsync.copy(artifact.place(entry.path), to / entry.mount_name, delete=False))
        dumps = artifact.place(f"{DUMPS}/{request.stack}")
        if dumps.is_dir():
            done.transfers.append(rsync.copy(dumps, to / "dumps", delete=False))
    filesystem.sync_filesystem(to)
    if warning := elsewhere.warning(to):
        done.warnings.append(warning)


def _verify(request: Request, means: Means, artifact: Artifact, paths: Sequence[str], done: _Done) -> None:
    """Raises RefusedError where what is asked for is damaged, unless `force`."""
    report = check(artifact, means.progress, paths)
    done.notes += [f"{artifact.name.name}: {warning}" for warning in report.warnings]
    if not report.damaged:
        return
    named = ", ".join(f"{display(finding.path)} ({finding.fault})" for finding in report.findings[:5])
    what = f"{artifact.name.name} is damaged: {report.summary}: {named}{' …' if report.damaged > 5 else ''}"
    if not request.force:
        raise RefusedError(what, hint="restore an older one with --from DATE, or this one as it is with --force")
    done.warnings.append(what)


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
    outcome = Outcome.WARN if done.warnings else Outcome.OK
    part = StackResult(
        request.stack, outcome, tuple(done.warnings), counts, done.standstill_seconds, artifact.name.name
    )
    return JobResult(
        outcome=outcome,
        reasons=tuple(done.warnings),
        stacks=() if request.dry_run else (part,),
        counts=counts,
        artifacts=(artifact.name.name,),
        exit_code=ExitCode.OK,
        details={**done.details, "not_restored": done.notes},
    )
