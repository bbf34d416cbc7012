"""Which of a stack's trees a backup covers, what covers each, and if nothing does, why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from stackward.core.errors import RefusedError
from stackward.steps import catalog
from stackward.steps.backup import sources
from stackward.tools import filesystem

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stackward.config import Settings
    from stackward.core.model import Stack, Tree
    from stackward.steps.catalog import Artifact


@dataclass(frozen=True, slots=True)
class Coverage:
    """`covered_by` is "" where nothing covers the tree; then `why_not` says why. `last_backup` is an artifact's name."""

    tree: Tree
    covered_by: str
    why_not: str
    last_backup: str


def backups(settings: Settings, now: datetime) -> list[Artifact]:
    """Every backup there is; none where BACKUP_ROOT cannot be read."""
    try:
        return catalog.catalog(settings, now)
    except RefusedError:
        return []


def of_stack(stack: Stack, volume: Path, artifacts: Sequence[Artifact]) -> list[Coverage]:
    """Each tree, in the stack's order."""
    covered = [tree for tree in stack.trees if tree.covered]
    plan = sources.plan(covered, volume, filesystem.mounts())
    how = {source.tree.path: source.reason for source in plan.sources}
    last = _last_backups(stack, artifacts)
    found = []
    for tree in stack.trees:
        why_not = tree.reason if not tree.covered else "" if stack.opted_in else stack.opted_reason
        by = "" if why_not else f"data backup, {how[tree.path]}"
        found.append(Coverage(tree, by, why_not, last.get(str(tree.artifact_path), "")))
    return found


def _last_backups(stack: Stack, artifacts: Sequence[Artifact]) -> dict[str, str]:
    """Path within a data backup -> the newest one that has it."""
    found: dict[str, str] = {}
    for backup in catalog.data_with(artifacts, stack.name):
        for entry in backup.trees(stack.name):
            found.setdefault(entry.path, backup.name.name)
    return found
