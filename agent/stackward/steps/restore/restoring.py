"""What restores from a backup and from a snapshot have in common: trees swapped while their stack stands still, and the way back.

Whatever fails or kills it: the old trees are there, or the new ones, never a mixture.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from stackward.config import Settings
from stackward.core.errors import RefusedError
from stackward.core.model import Container, Stack, display
from stackward.core.progress import Progress
from stackward.stacks.trees import foreign
from stackward.steps import crashpoints, quiesce
from stackward.steps.restore import home, kept, restore_path, restore_plan, restore_tree
from stackward.steps.restore.kept import Record
from stackward.steps.restore.restore_plan import Target
from stackward.steps.restore.restore_tree import Filled, Replacement
from stackward.steps.undo import Step, Undo
from stackward.steps.verified_copy import Checksums, Copier, LeftOut
from stackward.tools import beneath, rsync
from stackward.tools.docker import Docker

NO_LIMIT = float("inf")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Means:
    """What a restore works with. `docker` is None where no engine answers."""

    settings: Settings
    docker: Docker | None
    undo: Undo
    now: datetime
    run_id: str
    progress: Progress

    @property
    def kept(self) -> Path:
        return self.settings.state_dir / "kept"

    def reach(self, point: str) -> None:
        crashpoints.reach(point, self.settings.crash_point)


@dataclass(slots=True)
class Swapped:
    """What the new trees came from, in the order given, and how long the stack stood still."""

    transfers: list[rsync.Transfer] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # of the backup, each with the reason
    notes: list[str] = field(default_factory=list)
    standstill_seconds: float | None = None

    def add(self, one: Replacement, filled: Filled) -> None:
        self.transfers.append(filled.transfer)
        self.left_out += described_left_out(one.target.place, filled.left_out)
        self.notes += filled.notes


def record(means: Means, stack: Stack, what: str, directories: tuple[str, ...], *, whole_stack: bool = False) -> Record:
    """The record of what this restore will replace, without entries yet."""
    return Record(
        run=means.run_id,
        at=means.now.isoformat(),
        subject=stack.name,
        what=what,
        entries=(),
        directories=directories,
        whole_stack=whole_stack,
    )


def replace_trees(
    means: Means,
    stack: Stack,
    what: str,
    chosen: Sequence[Replacement],
    fill: Callable[[Replacement, Progress], Filled],
) -> Swapped:
    """Have `fill` make each new tree outside of the old one, stop the stack, swap, start it again.

    A tree that is a mount point is filled only when the stack has stopped.

    Raises:
        StackwardError, OSError: it failed, and what was there is there.
    """
    written = record(means, stack, what, tuple({str(one.home): None for one in chosen}), whole_stack=True)
    kept.write(means.kept, written)
    swapped = Swapped()
    try:
        for one in chosen:
            if not one.children:
                swapped.add(one, _filled(means, stack, one, fill))
        means.progress.step(f"{display(stack.name)}: swapping its data")
        plan = quiesce.whole_stack(quiesce.refreshed(means.docker, stack))
        crash_point = means.settings.crash_point
        with quiesce.quiesced(means.docker, means.undo, stack, plan, NO_LIMIT, crash_point) as still:
            means.reach("restore-stopped")
            for one in chosen:
                if one.children:
                    swapped.add(one, _filled(means, stack, one, fill))
            _swap(means, stack, chosen, plan, written)
    except BaseException:
        kept.discard_unfinished(means.kept, stack.name)
        raise
    swapped.standstill_seconds = still.seconds
    return swapped


def _filled(means: Means, stack: Stack, one: Replacement, fill: Callable[[Replacement, Progress], Filled]) -> Filled:
    still = ", which is a mount point: the stack stands still meanwhile" if one.children else ""
    means.progress.step(
        f"{display(stack.name)}: copying {display(one.target.place)}{still}", total_bytes=one.target.entry.bytes
    )
    return fill(one, means.progress)


def _swap(means: Means, stack: Stack, chosen: Sequence[Replacement], plan: quiesce.Plan, written: Record) -> None:
    entries = tuple(entry for one in chosen for entry in restore_tree.entries(one))
    written = replace(written, entries=entries)
    kept.write(means.kept, written)
    aside = [move for one in chosen for move in restore_tree.moves_aside(one)]
    inward = [move for one in chosen for move in restore_tree.moves_in(one)]
    reason = f"restore of stack {stack.name}: what was there is moved aside"
    # A host that boots may have started them on directories that Docker made for those that are away.
    stopped = [Step("stop", one.id) for one in plan.stop]
    with means.undo.promised(reason, [*stopped, *restore_tree.ways_back(aside)], only_on_error=True):
        restore_tree.carry_out(aside)
        means.reach("restore-aside")
        restore_tree.carry_out(inward)
        for one in chosen:
            restore_tree.adopt_attributes(one)
        kept.write(means.kept, replace(written, done=True))
        means.reach("restore-copied")


def write_path(
    means: Means,
    stack: Stack,
    what: str,
    chosen: restore_path.Plan,
    checksums: Callable[[bytes], Checksums | None],
    *,
    force: bool = False,
) -> Swapped:
    """Write what is planned for a path of a tree, while the stack runs. `checksums` has those of a path in the tree.

    Raises:
        LinkOnTheWayError: a container has put a link on the way.
        StackwardError, OSError: it failed, and what was there is there.
    """
    kept.discard_unfinished(means.kept, stack.name)
    if not chosen.write:
        return Swapped()
    where = home.outside(chosen.place, means.run_id, means.settings)
    written = record(means, stack, what, (str(where),))
    kept.write(means.kept, written)
    means.progress.step(f"{display(stack.name)}: restoring {display(chosen.inside.path)}")
    copier = Copier(force=force, on_bytes=lambda count: means.progress.advance(byte_count=count))
    try:
        beneath.make_directories(chosen.place, mode=0o755)
        todo = restore_path.make(chosen, restore_path.units(chosen, where), copier, checksums)
        written = replace(written, entries=tuple(unit.entry() for unit in todo))
        kept.write(means.kept, written)

        def finished() -> None:
            kept.write(means.kept, replace(written, done=True))

        reason = f"restoring in {display(chosen.place)}"
        restore_path.put_in(todo, means.undo, reason, finished, lambda: means.reach("path-placed"))
    except BaseException:
        kept.discard_unfinished(means.kept, stack.name)
        raise
    return copied(copier, chosen.place)


def copied(copier: Copier, place: Path) -> Swapped:
    """A result of what was copied to `place`."""
    filled = restore_tree.filled(copier)
    return Swapped([filled.transfer], described_left_out(place, filled.left_out), filled.notes)


def described_left_out(place: Path, left_out: Sequence[LeftOut]) -> list[str]:
    """What was not restored and why, by its full path."""
    return [f"{display(os.fsdecode(os.path.join(os.fsencode(place), one.path)))} {one.why}" for one in left_out]


def told_left_out(backup: str, left_out: Sequence[str], *, forced: bool) -> list[str]:
    """One reason for all files that are not as they were backed up; none where there are none."""
    if not left_out:
        return []
    named = "; ".join(left_out[:_SHOWN]) + (" …" if len(left_out) > _SHOWN else "")
    fate = (
        "restored all the same"
        if forced
        else "left out (an older backup may have them; --force restores damaged files)"
    )
    return [f"{backup} is damaged: {len(left_out)} {'file' if len(left_out) == 1 else 'files'} {fate}: {named}"]


def refuse_other_users(
    stack: Stack, chosen: Sequence[Replacement], containers: Sequence[Container], *, force: bool
) -> None:
    """Nothing is put under the feet of a container that is not stopped with the stack.

    `force` goes on all the same, but for a tree that is filled in its own place: what runs there could lead the copy astray.

    Raises:
        RefusedError: another project's running container has one of the trees mounted.
    """
    restore_plan.refuse_other_users(stack, [one.target for one in chosen if one.children or not force], containers)


def refuse_foreign(stack: Stack, targets: Sequence[Target]) -> None:
    """Nothing of one stack is placed in another one's directory, wherever a link leads.

    Raises:
        RefusedError: a link in the stack's directory leads one of its trees there.
    """
    for target in targets:
        source = target.tree.source if target.tree else stack.directory / "data"
        if (other := foreign(source, target.place, stack.directory)) is not None:
            raise RefusedError(
                f"{display(source)} leads to {display(target.place)}, which is the stack {display(other.name)}'s",
                hint=f"look at what put the link there, and remove it; --to DIR restores {display(stack.name)} elsewhere",
            )


def require_docker(means: Means, stack: Stack) -> None:
    if means.docker is None:
        raise RefusedError(
            f"no Docker Engine answers: it is not known whether {display(stack.name)} is running",
            hint="start Docker, or add --force if the stack does not run",
        )


def described_path(chosen: restore_path.Plan) -> dict[str, object]:
    """What writing the path would change, as results show it."""
    return {
        "place": display(chosen.place / chosen.inside.path),
        "new": [display(path) for path in chosen.new[: restore_tree.SHOWN]],
        "overwritten": [display(path) for path in chosen.replace[: restore_tree.SHOWN]],
        "left_alone": chosen.left_alone,
        "changes": len(chosen.write),
    }


def path_notes(chosen: restore_path.Plan) -> list[str]:
    notes = ["only files: a database that refers to them is as it was"]
    if chosen.left_alone:
        notes.insert(0, f"{chosen.left_alone} that differ were left alone (--overwrite replaces them)")
    return notes
