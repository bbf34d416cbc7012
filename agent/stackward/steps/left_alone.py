"""Which records this version of the appliance does not act on: a newer version made them, or they cannot be read.

They stay as they are, and are told by `check`, `status`, metrics, a message.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from stackward.config import Settings
from stackward.steps.catalog import Artifact
from stackward.steps.restore import kept
from stackward.steps.undo import Undo


class Kind(StrEnum):
    UNDO = "undo"  # something stays stopped or moved
    KEPT = "kept"  # a restore cannot be undone
    BACKUP = "backup"  # a backup cannot be used


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """One record, and what of it is not known, as a sentence without its full stop."""

    kind: Kind
    text: str


def look(settings: Settings, artifacts: Sequence[Artifact]) -> tuple[LeftAlone, ...]:
    """All of them, the weightiest kind first; `artifacts` are the backups there are."""
    undo = Undo(settings.state_dir / "undo", None)
    return (
        *(LeftAlone(Kind.UNDO, one.why) for one in undo.left_alone()),
        *(LeftAlone(Kind.KEPT, one.why) for one in kept.left_alone(settings.state_dir / "kept")),
        *(LeftAlone(Kind.BACKUP, f"{one.name.name}: {one.problem}") for one in artifacts if one.problem),
    )


def counted(found: Iterable[LeftAlone]) -> dict[str, int]:
    """The number of each kind, zeros included."""
    kinds = [one.kind for one in found]
    return {kind.value: kinds.count(kind) for kind in Kind}
