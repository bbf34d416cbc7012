"""What a backup would do with a stack, for `--dry-run`: the same decisions as the backup's, and nothing is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stackward.config import Settings
from stackward.core.model import Stack, Tree, display
from stackward.steps import quiesce
from stackward.steps.backup import sources, tree_backup
from stackward.steps.backup.stack_backup import Base
from stackward.tools import filesystem

BY_CHANGES = "by changes"
FULL_SCAN = "full scan"


def describe(
    stack: Stack,
    base: Base | None,
    day_base: Path | None,
    settings: Settings,
    table: tuple[filesystem.Mount, ...],
    *,
    full_scan: bool,
) -> dict[str, Any]:
    """What would be copied of the stack, from where and how; what would stand still, be called and be dumped.

    `base` is its newest good backup, `day_base` the backup that the day would begin as a snapshot of.
    """
    there = [tree for tree in stack.covered_trees if tree.path.is_dir()]
    chosen = sources.plan(there, settings.volume, table)
    still = quiesce.plan(stack, chosen.one_snapshot, there)
    services = stack.services
    hooks = [(when, hook) for one in services for when, hook in (("pre", one.policy.pre), ("post", one.policy.post))]
    return {
        "stack": display(stack.name),
        "trees": [
            *(_tree(source, chosen, stack, base, day_base, settings, full_scan) for source in chosen.sources),
            *(_missing(tree, base) for tree in stack.covered_trees if tree not in there),
        ],
        "pause": [container.name for container in still.pause],
        "stop": [container.name for container in still.stop],
        "why": "no running container has to" if still.empty and not chosen.one_snapshot else still.reason,
        "hooks": [{"service": hook.service, "when": when, "command": hook.command} for when, hook in hooks if hook],
        "dumps": [
            {"service": dump.service, "kind": dump.kind, "path": dump.path}
            for one in services
            for dump in one.policy.dumps
        ],
        "base": base.path.name if base else None,
    }


def _tree(
    source: sources.Source,
    chosen: sources.Plan,
    stack: Stack,
    base: Base | None,
    day_base: Path | None,
    settings: Settings,
    full_scan: bool,
) -> dict[str, str]:
    why = tree_backup.ASKED_FOR if full_scan else _doubt(source, chosen, stack, base, day_base, settings)
    return {
        "path": display(source.tree.path),
        "from": source.reason,
        "how": FULL_SCAN if why else BY_CHANGES,
        "why": why,
        "to": display(str(source.tree.artifact_path)),
    }


def _doubt(
    source: sources.Source,
    chosen: sources.Plan,
    stack: Stack,
    base: Base | None,
    day_base: Path | None,
    settings: Settings,
) -> str:
    return tree_backup.doubt(
        source,
        sources.home_of(settings.volume) if source.subvolume is not None else None,
        base.tree(str(source.tree.artifact_path)) if base else None,
        tree_backup.left_out(source.tree, stack, settings),
        elsewhere=base is not None and day_base != base.path and filesystem.is_on_btrfs(settings.backup_root),
        nested=chosen.has_nested(source),
    )


def _missing(tree: Tree, base: Base | None) -> dict[str, str]:
    last = base.tree(str(tree.artifact_path)) if base else None
    lost = last is not None and last.entry.files > 0
    why = "it held data and is not there now: the stack would be refused" if lost else "it does not exist yet"
    return {"path": display(tree.path), "from": "", "how": "not copied", "why": why, "to": ""}
