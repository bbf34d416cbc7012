"""What restores from a backup and from a snapshot have in common: trees swapped while their stack stands still, and the way back.

Whatever fails or kills it: the old trees are there, or the new ones, never a mixture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from stackward.config import Settings
from stackward.core.errors import RefusedError
from stackward.core.model import Stack, display
from stackward.core.progress import Progress
from stackward.steps import crashpoints, quiesce
from stackward.steps.restore import kept, restore_path, restore_tree
from stackward.steps.restore.kept import Record
from stackward.steps.restore.restore_tree import Replacement
from stackward.steps.undo import Step, Undo
from stackward.tools import rsync
from stackward.tools.docker import Docker

NO_LIMIT = float("inf")


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


@dataclass(frozen=True, slots=True)
class Swapped:
    """What the new trees came from, in the order given, and how long the stack stood still."""

    transfers: tuple[rsync.Transfer, ...]
    standstill_seconds: float | None


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
    fill: Callable[[Replacement, Progress], rsync.Transfer],
) -> Swapped:
    """Have `fill` make each new tree beside the old one, stop the stack, swap, start it again.

    Raises:
        StackwardError, OSError: it failed, and what was there is there.
    """
    written = record(means, stack, what, tuple({str(one.home): None for one in chosen}), whole_stack=True)
    kept.write(means.kept, written)
    transfers = []
    try:
        for one in chosen:
            means.progress.step(
                f"{display(stack.name)}: copying {display(one.target.place)}", total_bytes=one.target.entry.bytes
            )
            transfers.append(fill(one, means.progress))
        means.progress.step(f"{display(stack.name)}: swapping its data")
        plan = quiesce.whole_stack(quiesce.refreshed(means.docker, stack))
        crash_point = means.settings.crash_point
        with quiesce.quiesced(means.docker, means.undo, stack, plan, NO_LIMIT, crash_point) as still:
            means.reach("restore-stopped")
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
    except BaseException:
        kept.discard_unfinished(means.kept, stack.name)
        raise
    return Swapped(tuple(transfers), still.seconds)


def write_path(means: Means, stack: Stack, what: str, chosen: restore_path.Plan) -> rsync.Transfer | None:
    """Write what is planned for a path of a tree, while the stack runs; None where there is nothing to write."""
    kept.discard_unfinished(means.kept, stack.name)
    if not chosen.write:
        return None
    home = restore_path.home_of(chosen.place, means.run_id)
    written = record(means, stack, what, (str(home),))
    written = replace(written, entries=tuple(restore_path.entries(chosen, home)))
    kept.write(means.kept, written)
    means.progress.step(f"{display(stack.name)}: restoring {display(chosen.inside.path)}")

    def finished() -> None:
        kept.write(means.kept, replace(written, done=True))

    return restore_path.carry_through(chosen, home, means.undo, finished)


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
