"""convert: moves a stack's trees to subvolumes of the volume, proves that nothing changed, and can go back.

What was there is kept for seven days.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from stackward.core.errors import RefusedError, SettingsError, StackwardError
from stackward.core.model import Container, Counts, JobResult, Outcome, Stack, StackResult, Tree, TreeKind, display
from stackward.steps import quiesce, sizes
from stackward.steps.restore import kept, restoring
from stackward.steps.restore.restoring import Means
from stackward.steps.undo import Step, WayBackError
from stackward.steps.volume import conversion, sameness, snapshots, volume_move
from stackward.steps.volume.conversion import Move, Situation
from stackward.steps.volume.volume_move import KEPT_SUFFIX, VolumeMove
from stackward.tools import filesystem
from stackward.tools.docker_stand_ins import is_stand_in

WHAT = "move to the volume"
_SIZE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Request:
    """Of `stack` the tree called `tree`, or, where it is None, each that can be moved."""

    stack: str
    tree: str | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What moves; and of the other trees, why they stay (`done`: they are on subvolumes already).

    `remade` are the containers that Compose makes again for it, `notes` say what else comes of it.
    """

    moves: tuple[Move, ...]
    done: tuple[Tree, ...]
    staying: tuple[tuple[Tree, str], ...]
    remade: tuple[Container, ...] = ()
    notes: tuple[str, ...] = ()


def run(request: Request, means: Means, discovery_stacks: Sequence[Stack]) -> JobResult:
    """Move, or with `dry_run` say what would be. The caller holds the locks of the stack, the volume, and BACKUP_ROOT's.

    Raises:
        RefusedError: it cannot be done safely; nothing was changed.
        StackwardError, OSError: it failed; the trees stand where they stood.
    """
    stack = _named(request.stack, discovery_stacks)
    snapshots.require(means.settings.volume)
    restoring.require_docker(means, stack)
    plan = _plan(request, means, stack, discovery_stacks)
    details: dict[str, Any] = {
        "dry_run": request.dry_run,
        "moves": [
            {"tree": display(m.tree.mount_name), "from": display(m.place), "to": display(m.target), "bytes": m.bytes}
            for m in plan.moves
        ],
        "done": [display(tree.mount_name) for tree in plan.done],
        "staying": [{"tree": display(tree.mount_name), "why": why} for tree, why in plan.staying],
        "remade": [{"container": display(one.name), "started": one.runs} for one in plan.remade],
        "notes": list(plan.notes),
    }
    if not request.dry_run:
        _settle_killed(means, stack, plan.done)
    if request.dry_run or not plan.moves:
        if plan.staying and not plan.moves and not plan.done:
            told = "; ".join(f"{display(tree.mount_name)}: {why}" for tree, why in plan.staying)
            raise RefusedError(f"nothing of {display(stack.name)} can be moved safely: {told}")
        return JobResult(Outcome.OK, details=details | {"stop": [one.name for one in stack.running]})
    still, proofs = _move(means, stack, plan.moves)
    details["proofs"] = proofs
    counts = Counts(files=sum(one["paths"] for one in proofs), bytes=sum(one["bytes"] for one in proofs))
    outcome, reasons = _remade(means, stack, plan.remade)
    part = StackResult(stack.name, outcome, reasons, counts, still)
    return JobResult(outcome, stacks=(part,), counts=counts, details=details)


def undo_last(stack_name: str, means: Means, discovery_stacks: Sequence[Stack]) -> JobResult:
    """Put back what the last move replaced. What changed since stays on the volume, and nothing deletes it.

    Raises:
        StackwardError: there is nothing to undo, or it is gone.
    """
    stack = _named(stack_name, discovery_stacks)
    restoring.require_docker(means, stack)
    record = kept.latest(means.kept, stack.name)
    if WHAT not in record.what:
        raise RefusedError(
            f"the last thing done to {display(stack.name)} was: {record.what}",
            hint=f"stackward restore {display(stack.name)} --undo takes that back first",
        )
    targets = [display(os.path.realpath(entry.place)) for entry in record.entries]
    volumes = _plain_again(means, stack)
    targets += [display(target) for _, target in volumes]
    plan = quiesce.whole_stack(stack)
    kept.require(record)
    for step, _ in volumes:
        if why := conversion.not_made_again(stack, step.subject):
            raise RefusedError(f"volume {display(step.subject)}: {why}")
    # The record counts as undone only when the volumes are: killed before, all of it can be undone once more.
    with (
        quiesce.quiesced(means.docker, means.undo, stack, plan, restoring.NO_LIMIT) as still,
        _volumes_exchanged(means, stack, [step for step, _ in volumes]),
    ):
        places = kept.put_back(means.kept, record, means.now)["places"]
    places += [f"volume {display(step.subject)}" for step, _ in volumes]
    outcome, reasons = _remade(
        means, stack, volume_move.having(stack.containers, {step.subject for step, _ in volumes})
    )
    part = StackResult(stack.name, outcome, reasons, standstill_seconds=still.seconds)
    return JobResult(outcome, stacks=(part,), details={"undone": record.what, "places": places, "left": targets})


def _plain_again(means: Means, stack: Stack) -> list[tuple[Step, str]]:
    """For each volume of which a move kept what was there: the way back, and the directory that is left then."""
    found = []
    for tree in stack.trees:
        info = means.docker.volume(tree.volume) if means.docker is not None and tree.volume else None
        if info is not None and means.docker is not None and means.docker.volume(info.name + KEPT_SUFFIX) is not None:
            step = Step("volume", info.name, VolumeMove(info.name, "", info.labels).to_json())
            found.append((step, info.options.get("device", "")))
    return found


def _named(name: str, stacks: Sequence[Stack]) -> Stack:
    for stack in stacks:
        if stack.name == name:
            return stack
    raise SettingsError(f"there is no stack {display(name)}", hint="`stackward stacks` names them all")


def _plan(request: Request, means: Means, stack: Stack, stacks: Sequence[Stack]) -> Plan:
    if not stack.resolved:
        raise RefusedError(f"Compose cannot read {display(stack.name)}: its trees are not known for sure")
    volume = Path(os.path.realpath(means.settings.volume))
    situation = Situation(
        volume=volume,
        mounts=filesystem.mounts(),
        stacks=stacks,
        containers=means.docker.containers() if means.docker is not None else (),
        size_of=cache(lambda path: sizes.measure(path, seconds=_SIZE_SECONDS).allocated_bytes),
        volume_info=lambda name: means.docker.volume(name) if means.docker is not None and name else None,
        run_id=means.run_id,
        settings=means.settings,
    )
    moves: list[Move] = []
    done, staying = [], []
    notes: dict[str, None] = {}
    for tree in _chosen(request, stack):
        if conversion.is_done(tree, volume):
            done.append(tree)
        elif why := conversion.obstacle(stack, tree, situation, promised_bytes=sum(move.bytes for move in moves)):
            staying.append((tree, why))
        else:
            moves.append(conversion.move_for(tree, situation))
            notes |= dict.fromkeys(conversion.readers(stack, tree, situation))
    remade = volume_move.having(stack.containers, {move.tree.volume for move in moves if move.tree.volume})
    return Plan(tuple(moves), tuple(done), tuple(staying), remade, tuple(notes))


def _chosen(request: Request, stack: Stack) -> list[Tree]:
    if request.tree is None:
        return list(stack.trees)
    wanted = request.tree.removeprefix("./").rstrip("/")
    for tree in stack.trees:
        named = wanted in (tree.mount_name, tree.volume, str(tree.source))
        if named or stack.directory / wanted == tree.source or tree.volume == f"{stack.project}_{wanted}":
            return [tree]
    known = ", ".join(display(tree.mount_name) for tree in stack.trees) or "none"
    raise SettingsError(f"{display(stack.name)} has no tree {display(request.tree)}", hint=f"its trees: {known}")


def _settle_killed(means: Means, stack: Stack, done: Sequence[Tree]) -> None:
    """What a killed run had moved counts as moved, and can be undone; what it had not leaves no trace."""
    for tree in done:
        conversion.settle(tree.path)
    for record in kept.records(means.kept):
        if record.subject != stack.name or record.done or WHAT not in record.what:
            continue
        moved = tuple(entry for entry in record.entries if conversion.was_moved(entry))
        if moved:
            kept.write(means.kept, replace(record, entries=moved, done=True))
    kept.discard_unfinished(means.kept, stack.name)


def _move(means: Means, stack: Stack, moves: Sequence[Move]) -> tuple[float | None, list[dict[str, Any]]]:
    """Returns how long the stack stood still, and for each tree what was compared."""
    names = ", ".join(display(move.tree.mount_name) for move in moves)
    directories = [move for move in moves if move.tree.kind is not TreeKind.VOLUME]
    homes = tuple({str(move.home): None for move in directories})
    record = restoring.record(means, stack, f"{WHAT} of {display(stack.name)}: {names}", homes, whole_stack=True)
    proofs = []
    proven: dict[Move, sameness.Proof] = {}
    copies = [Step("delete", str(move.incoming)) for move in moves]
    with means.undo.noted(f"{display(stack.name)} is copied to the volume", copies), ExitStack() as failed:
        for move in moves:
            failed.callback(conversion.abandon, move)
            conversion.begin(move, means.progress)
        plan = quiesce.whole_stack(stack)
        with quiesce.quiesced(means.docker, means.undo, stack, plan, restoring.NO_LIMIT) as still:
            for move in moves:
                proof = proven[move] = conversion.finish(move, means.progress)
                told = {"paths": proof.paths, "bytes": proof.bytes, "sha256": proof.digest}
                proofs.append({"tree": display(move.tree.mount_name), **told})
            means.reach("convert-proven")
            for move in moves:
                conversion.name(move)
            record = replace(record, entries=tuple(map(conversion.entry, directories)))
            kept.write(means.kept, record)
            for move in directories:
                conversion.swap(move, means.undo, [one.id for one in plan.stop], proven[move])
                failed.callback(conversion.swap_back, move)
                means.reach("convert-swapped")
            kept.write(means.kept, replace(record, done=True))
            failed.pop_all()
            with _volumes_exchanged(means, stack, [_bound(means, m) for m in moves if m not in directories]):
                pass
        means.reach("convert-resumed")
    for move in moves:
        conversion.settle(move.target)
    return still.seconds, proofs


def _bound(means: Means, move: Move) -> Step:
    info = means.docker.volume(move.tree.volume or "") if means.docker is not None else None
    if info is None:
        raise StackwardError(f"volume {display(move.tree.volume or '')} is gone")
    return conversion.volume_step(move, info)


@contextmanager
def _volumes_exchanged(means: Means, stack: Stack, steps: Sequence[Step]) -> Iterator[None]:
    """The body runs when the volumes were removed and made again; afterwards Compose makes the containers that had them.

    It starts those that ran. What Compose cannot make again is told by `_remade`, and is tried again by whoever finds the
    record of it, as where it was broken off: it is finished, or the volume left as it was, and the services are started.
    """
    if not steps or means.docker is None:
        yield
        return
    having = volume_move.having(stack.containers, {step.subject for step in steps})
    every = dict.fromkeys(one.service for one in having)
    running = dict.fromkeys(one.service for one in having if one.runs)
    again = [Step("create", str(stack.directory), service) for service in every]
    again += [Step("up", str(stack.directory), service) for service in running]
    is_done = False
    try:
        with means.undo.promised(f"volumes of stack {stack.name} are exchanged", [*steps, *again]):
            means.reach("convert-volumes")
            for step in steps:
                volume_move.exchange(means.docker, step.detail, means.reach)
            yield
            is_done = True
    except WayBackError:
        if not is_done:
            raise


def _remade(means: Means, stack: Stack, remade: Sequence[Container]) -> tuple[Outcome, tuple[str, ...]]:
    """Whether the containers that went with their volumes are there again, and run if they did; if not, what to do."""
    if not remade or means.docker is None:
        return Outcome.OK, ()
    now = [one for one in means.docker.containers(stack.project) if not is_stand_in(one)]
    gone = _fewer(remade, now)
    well = [one for one in now if one.runs or (one.state == "exited" and not (one.exit_code or one.error))]
    idle = [name for name in _fewer([one for one in remade if one.runs], well) if name not in gone]
    where = f"in {display(stack.directory)}"
    reasons = [
        f"Compose could not make a container of {display(name)} again: `docker compose up --no-start {display(name)}`"
        f" {where} says why; it is tried again when the appliance starts, and before its next run"
        for name in gone
    ]
    reasons += [
        f"{display(name)} ran, and does not now: `docker compose up -d {display(name)}` {where}" for name in idle
    ]
    return Outcome.FAILED if gone else Outcome.WARN if idle else Outcome.OK, tuple(reasons)


def _fewer(before: Iterable[Container], now: Iterable[Container]) -> list[str]:
    """The services that have fewer containers than before."""
    return sorted(Counter(one.service for one in before) - Counter(one.service for one in now))
