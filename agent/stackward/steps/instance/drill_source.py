"""Which backups a stack is drilled from: one of its data with the configuration of that time; without data, the latter alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from stackward.core.artifacts import ArtifactKind
from stackward.core.errors import SettingsError, StackwardError
from stackward.core.index import TreeEntry
from stackward.core.model import Stack, display
from stackward.steps import catalog
from stackward.steps.catalog import Artifact
from stackward.steps.restore import restore_plan

_DAY = timedelta(days=1)
_SHOWN = 7


class NotDerivableError(StackwardError):
    """There can be no drill of this stack; the message says why."""


@dataclass(frozen=True, slots=True)
class Source:
    """`data` is None for a stack that has none. The drill is from the backup called `name`, of what was there `at`."""

    data: Artifact | None
    config: Artifact
    at: datetime

    @property
    def name(self) -> str:
        return (self.data or self.config).name.name

    def trees(self, stack: str) -> tuple[TreeEntry, ...]:
        return self.data.trees(stack) if self.data else ()


def choose(artifacts: Sequence[Artifact], stack: Stack, wanted: str | None) -> Source:
    """The newest, or the one called `wanted` (or of that date).

    Raises:
        NotDerivableError: no config backup is there, or none of the wanted date.
        StackwardError: no backup holds its data.
    """
    if _has_data(stack) or wanted in _data_names(artifacts, stack):
        if wanted is not None and wanted not in _names(artifacts, stack):
            raise NotDerivableError(_none(stack, wanted))
        data = restore_plan.choose(artifacts, stack.name, wanted)
        at = data.at(stack.name)
        return Source(data, _config_of_about(artifacts, at + _DAY), at)
    configs = [one for one in artifacts if one.kind is ArtifactKind.CONFIG]
    found = [one for one in configs if wanted is None or wanted in _config_names(one)]
    if configs and not found:
        raise NotDerivableError(_none(stack, wanted or ""))
    config = found[0] if found else _config_of_about(artifacts, None)
    return Source(None, config, config.made_at)


def require_wanted(artifacts: Sequence[Artifact], stacks: Sequence[Stack], wanted: str, *, named: bool) -> None:
    """`wanted` must be there for each of the stacks that were `named`; else for one of them.

    Raises:
        SettingsError: it is not; the hint has those that are.
    """
    lacking = [stack for stack in stacks if wanted not in _names(artifacts, stack)]
    if not lacking or (not named and len(lacking) < len(stacks)):
        return
    told = {name: None for stack in (lacking[:1] if named else stacks) for name in _told(artifacts, stack)}
    dates = sorted(told, reverse=True)[:_SHOWN]
    hint = f"--from one of: {', '.join(dates)}" if dates else "`stackward backup` makes one"
    raise SettingsError(_none(lacking[0], wanted) if named else f"there is no backup {display(wanted)}", hint=hint)


def _none(stack: Stack, wanted: str) -> str:
    return f"{display(wanted)} is no backup of {display(stack.name)}"


def _has_data(stack: Stack) -> bool:
    """Whether data backups hold it: by its trees, or dumps."""
    return bool(stack.covered_trees) or any(service.policy.dumps for service in stack.services)


def _names(artifacts: Sequence[Artifact], stack: Stack) -> set[str]:
    """Everything that --from may be called with, of one stack."""
    found = _data_names(artifacts, stack)
    if not _has_data(stack):
        found |= {name for one in artifacts if one.kind is ArtifactKind.CONFIG for name in _config_names(one)}
    return found


def _data_names(artifacts: Sequence[Artifact], stack: Stack) -> set[str]:
    held = {one.name.name for one in catalog.data_with(artifacts, stack.name)}
    return held | {name.removeprefix("data-") for name in held}


def _told(artifacts: Sequence[Artifact], stack: Stack) -> Iterator[str]:
    """The dates among these, newest first."""
    for one in artifacts:
        if one.kind is ArtifactKind.DATA and stack.name in one.stacks:
            yield one.name.name.removeprefix("data-")
        elif one.kind is ArtifactKind.CONFIG and not _has_data(stack):
            yield _config_names(one)[1]


def _config_names(one: Artifact) -> tuple[str, str]:
    return one.name.name, f"{one.name.when:%Y-%m-%d}"


def _config_of_about(artifacts: Sequence[Artifact], at: datetime | None) -> Artifact:
    """The newest that is not younger, or else the oldest there is; the list ends with what a wrong clock has dated."""
    found = [one for one in artifacts if one.kind is ArtifactKind.CONFIG]
    if not found:
        raise NotDerivableError("there is no config backup: `stackward backup --config` makes one")
    return next((one for one in found if at is None or one.made_at <= at), min(found, key=lambda one: one.made_at))
