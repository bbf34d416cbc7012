"""What a run will make of a day: which stacks, from which of their backups each goes on, and where the day begins."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from stackward.config import Settings
from stackward.core import artifacts
from stackward.core.errors import SettingsError
from stackward.core.index import Index, StackEntry
from stackward.core.model import Outcome, Stack, StackResult, display
from stackward.steps import catalog
from stackward.steps.backup.stack_backup import Base
from stackward.store import Store, Verified, is_damaged
from stackward.tools import filesystem


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will do. `carried` are the stacks that today's backup has and this run does not make.

    `bases` are the stacks' newest good backups; `last` also counts those that were found damaged.
    """

    name: str
    make: tuple[Stack, ...]
    skip: tuple[StackResult, ...]
    day_base: Path | None
    bases: dict[str, Base]
    last: dict[str, StackEntry]
    newest: dict[str, StackEntry]
    today: Index | None
    carried: tuple[str, ...]


def make(settings: Settings, store: Store, stacks: Sequence[Stack], only: Sequence[str], now: datetime) -> Plan:
    """The plan of a run for the opted-in stacks, or those that `only` names.

    Raises:
        SettingsError: `only` names a stack that does not exist.
        RefusedError: BACKUP_ROOT cannot be read.
    """
    name = artifacts.data_name(now)
    seen = store.verified()
    data = [one for one in catalog.catalog(settings, now) if one.kind is artifacts.ArtifactKind.DATA]
    listed = [artifact for artifact in data if artifact.index is not None]
    usable = [artifact for artifact in listed if not is_damaged(seen.get(artifact.name.name))]
    chosen, skip = _chosen(stacks, only)
    bases: dict[str, Base] = {}
    last: dict[str, StackEntry] = {}
    for artifact in listed:
        for stack_name, entry in (artifact.index.stacks if artifact.index else {}).items():
            last.setdefault(stack_name, entry)
            if not is_damaged(seen.get(artifact.name.name), stack_name) and stack_name not in bases:
                bases[stack_name] = Base(artifact.path, entry, _suspicion(artifact, entry, seen, now))
    today = next((one.index or _told_by_directories(one) for one in data if one.name.name == name), None)
    return Plan(
        name=name,
        make=chosen,
        skip=skip,
        day_base=_origin(name, usable, [bases[stack.name] for stack in chosen if stack.name in bases]),
        bases=bases,
        last=last,
        newest={stack.name: bases[stack.name].entry for stack in stacks if stack.opted_in and stack.name in bases},
        today=today,
        carried=tuple(sorted(set(today.stacks if today else ()) - {stack.name for stack in chosen})),
    )


def _told_by_directories(backup: catalog.Artifact) -> Index:
    """What a backup without `stackward.json`, or with one that cannot be read, holds as far as its directories' names tell."""
    when = backup.name.when
    stacks = {
        stack: StackEntry(
            stack=stack,
            project=stack,
            at=when.isoformat(),
            run="",
            trees=backup.trees(stack),
            dumps=backup.dumps(stack),
            incomplete=f"{artifacts.INDEX} was not there, or could not be read: it holds what its directories' names say",
        )
        for stack in backup.stacks
    }
    return Index(f"{when:%Y-%m-%d}", when.isoformat(), "", stacks)


def _suspicion(base: catalog.Artifact, entry: StackEntry, seen: Mapping[str, Verified], now: datetime) -> str:
    """Why not to go by what is known of a backup, or "".

    It may be damaged where another one was found so since it was verified, also one that is gone: they share their files.
    """
    if entry.began and datetime.fromisoformat(entry.began) > now:
        return "its last backup is dated in the future"
    mine = seen.get(base.name.name)
    for name, said in seen.items():
        if is_damaged(said, entry.stack) and name != base.name.name and (mine is None or mine.at < said.at):
            return f"{name} was found damaged since its last backup was verified"
    return ""


def _origin(name: str, usable: Sequence[catalog.Artifact], bases: Sequence[Base]) -> Path | None:
    """What the day begins as a snapshot of: today's backup, which it may have to carry over, or where most of its data is."""
    subvolumes = [artifact for artifact in usable if filesystem.is_subvolume(artifact.path)]
    today = next((artifact.path for artifact in subvolumes if artifact.name.name == name), None)
    if today is not None:
        return today
    held = {
        artifact.path: sum(tree.bytes for base in bases if base.path == artifact.path for tree in base.entry.trees)
        for artifact in subvolumes
    }
    return max(held, key=lambda path: held[path], default=None)  # the newest where it makes no difference


def _chosen(stacks: Sequence[Stack], only: Sequence[str]) -> tuple[tuple[Stack, ...], tuple[StackResult, ...]]:
    by_name = {stack.name: stack for stack in stacks}
    for name in only:
        if name not in by_name:
            close = difflib.get_close_matches(name, by_name, 1)
            hint = f"did you mean {display(close[0])}?" if close else "`stackward stacks` shows those there are"
            raise SettingsError(f"there is no stack {display(name)}", hint=hint)
    wanted = [stack for stack in stacks if (stack.name in only if only else stack.opted_in)]
    make, skip = [], []
    for stack in wanted:
        if stack.name in artifacts.RESERVED_STACK_NAMES:
            reason = "backups use this name themselves; rename the stack's directory"
            skip.append(StackResult(stack.name, Outcome.FAILED, (reason,)))
        elif stack.covered_trees or any(service.policy.dumps for service in stack.services):
            make.append(stack)
        else:
            reason = "it has no data outside its configuration, which the config backup holds"
            skip.append(StackResult(stack.name, Outcome.SKIPPED, (reason,)))
    return tuple(make), tuple(skip)
