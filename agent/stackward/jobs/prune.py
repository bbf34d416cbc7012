"""prune: removes the backups that retention no longer keeps, and says of every other one why it stays.

A stack leaves a day's data backup by itself; a day that no stack needs goes whole. What leaves is first renamed out of
the listing, so that a backup is never listed while parts of it are gone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from stackward.config import Settings
from stackward.core import retention
from stackward.core.artifacts import CHECKSUM_SUFFIX, SIGNATURE_SUFFIX, ArtifactKind, incoming_name, parse_name
from stackward.core.errors import RefusedError, StackwardError
from stackward.core.model import JobResult, Keep, Outcome, Stack, display
from stackward.core.progress import Progress
from stackward.steps import backup_root, catalog, crashpoints
from stackward.steps.appliance_id import owner
from stackward.steps.backup import day
from stackward.steps.catalog import Artifact
from stackward.steps.restore import kept
from stackward.store import Store, Verified, is_damaged
from stackward.tools import filesystem

KEPT_AT_LEAST = timedelta(hours=24)  # also what another backup of the day replaced
KEEP_LABEL = "stackward.backup.keep"
_TRASH = incoming_name("", "trash-")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a backup (or, of a data backup, one stack's part) stays, and why. `stack` is "" for a whole artifact."""

    artifact: Artifact
    stack: str
    keep: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Removal:
    """Remove `stacks` from a data backup, or all of an artifact where `stacks` is empty."""

    artifact: Artifact
    stacks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """What the plan is made from."""

    artifacts: Sequence[Artifact]
    keep_by_stack: dict[str, Keep | str]  # a rule, or why there is none and so everything stays
    keep_default: Keep
    held: dict[str, str]  # stack: why its backups must stay
    said: dict[str, Verified]  # what verify last said of an artifact, by its name
    replaced_for: timedelta = KEPT_AT_LEAST  # how long what another backup of the day replaced stays

    def is_good(self, artifact: Artifact, stack: str) -> bool:
        """Whether nothing is known against it or, with `stack`, against what it holds of that."""
        damaged = is_damaged(self.said.get(artifact.name.name), stack)
        return not damaged and not artifact.problem and not artifact.incomplete(stack)


def run(
    *,
    settings: Settings,
    store: Store,
    discovery_stacks: Sequence[Stack],
    now: datetime,
    run_id: str,
    progress: Progress,
    dry_run: bool = False,
    gone: bool = False,
    replaced: bool = False,
) -> JobResult:
    """Remove what retention no longer keeps, and what restores replaced a week ago. The caller holds BACKUP_ROOT's lock.

    Backups of stacks that are no longer under DOCKER_ROOT all stay, unless `gone` says to use the default rule. What another
    backup of the day replaced stays for 24 hours, unless `replaced`.

    Raises:
        RefusedError: BACKUP_ROOT is not the disk that it was, or `gone` was said and every stack is.
    """
    if gone and not discovery_stacks:
        raise RefusedError("no stack was found at all", hint="is the disk with DOCKER_ROOT mounted?")
    if not dry_run:
        backup_root.recognise(settings, now)
    listed = catalog.catalog(settings, now)
    facts = _facts(settings, store, discovery_stacks, listed, gone=gone)
    verdicts = plan(replace(facts, replaced_for=timedelta(0)) if replaced else facts, now)
    removals = removals_of(verdicts)
    failures: list[str] = []
    warnings: list[str] = []
    done: list[Removal] = []
    if not dry_run:
        backup_root.clean_incoming(settings, _TRASH)
        _remove_orphans(settings, now)
        warnings += kept.expire(settings.state_dir / "kept", now).stuck
        for removal in removals:
            progress.step(f"removing {_describe(removal)}")
            try:
                _remove(removal, settings, store, run_id, now)
            except (OSError, StackwardError, ValueError) as error:
                failures.append(f"{_describe(removal)} could not be removed: {error}")
            else:
                done.append(removal)
    return JobResult(
        outcome=Outcome.FAILED if failures else Outcome.WARN if warnings else Outcome.OK,
        reasons=(*failures, *warnings),
        artifacts=tuple(removal.artifact.name.name for removal in done),
        details={
            "dry_run": dry_run,
            "removed": [_describe(removal) for removal in (removals if dry_run else done)],
            "items": [_item(verdict) for verdict in verdicts],
        },
    )


def plan(facts: Facts, now: datetime) -> list[Verdict]:
    """A verdict for every artifact and every stack in one, newest first. Pure."""
    verdicts: list[Verdict] = []
    for kind in (ArtifactKind.CONFIG, ArtifactKind.SECRETS):
        files = [a for a in facts.artifacts if a.kind is kind]
        verdicts += _by_rule(files, "", facts, facts.keep_default, now)
    days = [a for a in facts.artifacts if a.kind is ArtifactKind.DATA and not a.replaced]
    for stack in sorted({stack for artifact in days for stack in artifact.stacks}):
        having = [a for a in days if stack in a.stacks]
        rule = facts.keep_by_stack.get(stack, facts.keep_default)
        if isinstance(rule, str):
            verdicts += [Verdict(a, stack, keep=True, reasons=(rule,)) for a in having]
        else:
            verdicts += _by_rule(having, stack, facts, rule, now)
    verdicts += [Verdict(a, "", keep=True, reasons=("it holds no stack",)) for a in days if not a.stacks]
    verdicts += [_of_replaced(a, days, facts, now) for a in facts.artifacts if a.replaced]
    order = {artifact.name: position for position, artifact in enumerate(facts.artifacts)}
    return sorted(_whole_where_needed(verdicts), key=lambda v: (order[v.artifact.name], v.stack))


def removals_of(verdicts: Sequence[Verdict]) -> list[Removal]:
    """What to do about the verdicts: a day goes whole when nothing in it stays."""
    removals = []
    for name in dict.fromkeys(v.artifact.name for v in verdicts):
        mine = [v for v in verdicts if v.artifact.name == name]
        leaving = tuple(v.stack for v in mine if not v.keep)
        if len(leaving) == len(mine):
            removals.append(Removal(mine[0].artifact))
        elif leaving:
            removals.append(Removal(mine[0].artifact, leaving))
    return removals


def _by_rule(artifacts: Sequence[Artifact], stack: str, facts: Facts, rule: Keep, now: datetime) -> list[Verdict]:
    by_key = {artifact.name.name: artifact for artifact in artifacts}
    items = [
        retention.Item(
            key=key,
            when=artifact.at(stack),
            good=facts.is_good(artifact, stack),
            pinned="less than 24 hours old" if now - artifact.at(stack) < KEPT_AT_LEAST else "",
            held=facts.held.get(stack, "") if stack else "",
        )
        for key, artifact in by_key.items()
    ]
    verdicts = []
    for decision in retention.plan(items, rule, now):
        artifact = by_key[decision.item.key]
        if artifact.problem and not decision.keep:
            verdicts.append(Verdict(artifact, stack, keep=True, reasons=(f"in doubt: {artifact.problem}",)))
        else:
            verdicts.append(Verdict(artifact, stack, decision.keep, decision.reasons))
    return verdicts


def _of_replaced(artifact: Artifact, days: Sequence[Artifact], facts: Facts, now: datetime) -> Verdict:
    replaced_at = artifact.name.replaced_at
    assert replaced_at is not None
    last = [s for s in artifact.stacks if not any(s in d.stacks and facts.is_good(d, s) for d in days)]
    held = [stack for stack in artifact.stacks if stack in facts.held]
    if artifact.problem:
        reason = f"in doubt: {artifact.problem}"
    elif last:
        reason = f"the last good backup of {', '.join(map(display, last))}"
    elif held:
        reason = f"{display(held[0])} is held: {facts.held[held[0]]}"
    elif now - replaced_at < facts.replaced_for:
        reason = "replaced less than 24 hours ago (`stackward prune --replaced` does not wait)"
    else:
        return Verdict(artifact, "", keep=False, reasons=("another backup of the day has replaced it",))
    return Verdict(artifact, "", keep=True, reasons=(reason,))


def _whole_where_needed(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """A data backup without an index cannot lose a single stack: it stays while any of its stacks does."""
    staying = {v.artifact.name for v in verdicts if v.keep}
    return [
        Verdict(v.artifact, v.stack, keep=True, reasons=("another stack in it stays, and it has no index",))
        if not v.keep and v.stack and v.artifact.index is None and v.artifact.name in staying
        else v
        for v in verdicts
    ]


def _facts(
    settings: Settings, store: Store, stacks: Sequence[Stack], artifacts: Sequence[Artifact], *, gone: bool
) -> Facts:
    rules: dict[str, Keep | str] = {}
    if not gone:
        rules = {
            name: "the stack is no longer under DOCKER_ROOT (`stackward prune --gone` lets its backups go)"
            for artifact in artifacts
            for name in artifact.stacks
        }
    for stack in stacks:
        rules[stack.name] = stack.policy.keep or settings.keep
        if not stack.resolved:
            rules[stack.name] = "its compose file cannot be read, so how long to keep it is not known"
        elif any(problem.key == KEEP_LABEL for problem in stack.problems):
            rules[stack.name] = f"{KEEP_LABEL} cannot be read, so how long to keep it is not known"
    return Facts(
        artifacts=artifacts,
        keep_by_stack=rules,
        keep_default=settings.keep,
        held={name: hold.reason for name, hold in store.holds().items()},
        said=store.verified(),
    )


def _remove(removal: Removal, settings: Settings, store: Store, run_id: str, now: datetime) -> None:
    artifact = removal.artifact
    if removal.stacks:
        name = artifact.name.name
        day.rewrite_without(settings.backup_root, name, removal.stacks, run_id, now, owner=owner(settings))
        return
    day.retire(artifact.path, _reached(settings), owner=owner(settings))
    if artifact.kind is not ArtifactKind.DATA:
        filesystem.remove(artifact.checksum_path)
        filesystem.remove(artifact.path.with_name(artifact.name.name + SIGNATURE_SUFFIX))
    store.forget_verified(artifact.name.name)


def _reached(settings: Settings) -> Callable[[str], None]:
    return lambda point: crashpoints.reach(point, settings.crash_point)


def _remove_orphans(settings: Settings, now: datetime) -> None:
    """Checksums whose artifact went when a prune was killed. Younger ones may belong to what is just being made."""
    for entry in os.listdir(settings.backup_root):
        path: Path = settings.backup_root / entry
        stem = entry.removesuffix(SIGNATURE_SUFFIX).removesuffix(CHECKSUM_SUFFIX)
        if stem == entry or parse_name(stem, settings.zone) is None or os.path.lexists(path.with_name(stem)):
            continue
        if now.timestamp() - os.lstat(path).st_mtime > KEPT_AT_LEAST.total_seconds():
            filesystem.remove(path)


def _describe(removal: Removal) -> str:
    name = removal.artifact.name.name
    return f"{', '.join(map(display, removal.stacks))} from {name}" if removal.stacks else name


def _item(verdict: Verdict) -> dict[str, object]:
    return {
        "artifact": verdict.artifact.name.name,
        "stack": display(verdict.stack),
        "keep": verdict.keep,
        "reasons": list(verdict.reasons),
    }
