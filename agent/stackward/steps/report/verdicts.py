"""Which stacks are protected: what is on the disk counts, not what was once recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackward.core.artifacts import ArtifactKind
from stackward.core.errors import RefusedError
from stackward.core.model import Outcome, display
from stackward.core.verdict import Cause, Facts, State, Verdict, judge
from stackward.steps import catalog
from stackward.store import is_damaged

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from stackward.config import Settings
    from stackward.core.model import Stack
    from stackward.store import Hold, Store, Verified


@dataclass(frozen=True, slots=True)
class Backups:
    """What there is in BACKUP_ROOT, newest first, or why that cannot be told. `said` is what verify last said, by name."""

    artifacts: tuple[catalog.Artifact, ...]
    said: dict[str, Verified]
    unreadable: str = ""

    def good(self, kind: ArtifactKind) -> catalog.Artifact | None:
        """The newest one that nothing is known against."""
        return next((a for a in self.artifacts if a.kind is kind and self.is_good(a)), None)

    def is_good(self, artifact: catalog.Artifact, stack: str = "") -> bool:
        """Whether nothing is known against it or, with `stack`, against what it holds of that."""
        return not artifact.problem and not artifact.incomplete(stack) and not self.is_damaged(artifact, stack)

    def is_damaged(self, artifact: catalog.Artifact, stack: str = "") -> bool:
        return is_damaged(self.said.get(artifact.name.name), stack)

    def data_of(self, stack: str) -> catalog.Artifact | None:
        """The newest good data backup that holds all of `stack`."""
        held = catalog.data_with(self.artifacts, stack)
        return next((a for a in held if self.is_good(a, stack)), None)


def backups(settings: Settings, store: Store, now: datetime) -> Backups:
    """Look at BACKUP_ROOT; it raises nothing if that cannot be read."""
    said = store.verified()
    try:
        return Backups(tuple(catalog.catalog(settings, now)), said)
    except RefusedError as error:
        return Backups((), said, error.message)


def judged(
    settings: Settings, store: Store, stacks: Sequence[Stack], now: datetime, found: Backups | None = None
) -> list[Verdict]:
    """A verdict per stack, in their order."""
    found = found or backups(settings, store, now)
    config = found.good(ArtifactKind.CONFIG)
    holds, last = store.holds(), store.last_stacks("backup-data")
    recipients = bool(settings.age_recipients)
    verdicts = []
    for stack in stacks:
        data = catalog.data_with(found.artifacts, stack.name)
        good = found.data_of(stack.name)
        part = last.get(stack.name)
        damaged = bool(data) and found.is_damaged(data[0], stack.name)
        facts = Facts(
            data_at=good.at(stack.name) if good else None,
            data_backups=len(data),
            config_at=config.made_at if config else None,
            damaged=f"{data[0].name.name}, its newest backup, is damaged" if damaged else "",
            held=_told(holds[stack.name]) if stack.name in holds else "",
            failure="; ".join(part.reasons) if part and part.outcome is Outcome.FAILED else "",
            unreadable=found.unreadable,
        )
        verdicts.append(judge(stack, facts, recipients=recipients, now=now))
    return verdicts


def _told(hold: Hold) -> str:
    accept = f"`stackward accept {display(hold.stack)}` if that is right"
    return f"{display(hold.tree)}: {hold.reason}; nothing of it is copied or pruned ({accept})"


def vanished(store: Store, stacks: Sequence[Stack], found: Backups) -> list[Verdict]:
    """A verdict on each that was backed up once and is not among `stacks`, in the order of their names."""
    verdicts = []
    for name in sorted(store.opted_in() - {stack.name for stack in stacks}):
        good = found.data_of(name)
        why = (
            f"it was backed up, and its directory is gone: `stackward restore config {display(name)}` brings it back;"
            f" if it is meant to be gone, `stackward accept {display(name)}`"
        )
        last_good = good.at(name) if good else None
        verdicts.append(Verdict(name, State.UNPROTECTED, (why,), last_good=last_good, cause=Cause.GONE))
    return verdicts
