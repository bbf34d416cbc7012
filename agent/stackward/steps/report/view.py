"""A look at the host and at BACKUP_ROOT, kept in the store, so that a scrape has nothing to find out.

It also says what stands wrong whether anything runs or not: a backup that grew old, labels that went, a disk that is full.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stackward.core.artifacts import ArtifactKind
from stackward.core.model import display
from stackward.core.units import format_bytes
from stackward.core.verdict import Cause, State
from stackward.observe.facts import BackupFacts, ContainerFacts, SpaceFacts, StackFacts, View
from stackward.stacks.discovery import DockerRootError
from stackward.steps import left_alone
from stackward.steps.report.verdicts import Backups, backups, judged, vanished

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from stackward.config import Settings
    from stackward.core.model import Container, Stack
    from stackward.core.verdict import Verdict
    from stackward.stacks import Discovery
    from stackward.store import Store

BACKUP_ROOT = "backup-root"  # the target's name where there is no other


@dataclass(frozen=True, slots=True)
class Look:
    """`conditions` are what stands wrong: what it is about → a sentence."""

    view: View
    conditions: dict[str, str]


def look(
    settings: Settings,
    store: Store,
    discover: Callable[[], Discovery],
    *,
    now: datetime,
    open_undo: int,
    intervals: Mapping[str, float],
) -> Look:
    """What can be seen now. Where DOCKER_ROOT cannot be read, the stacks of the last look stay, unprotected."""
    conditions: dict[str, str] = {}
    found = backups(settings, store, now)
    if found.unreadable:
        conditions["BACKUP_ROOT"] = f"{found.unreadable}. No backup can be made."
    try:
        discovery = discover()
    except DockerRootError as error:
        conditions["DOCKER_ROOT"] = f"{error.message}. No stack can be found."
        stacks, problems, docker_answers = _remembered(store), 1, True
    else:
        stacks = _stacks(settings, store, discovery, found, now, conditions)
        problems, docker_answers = len(discovery.problems), not discovery.docker_error
        if not docker_answers:
            conditions["the Docker Engine"] = f"Docker does not answer: {discovery.docker_error}."
    if open_undo:
        conditions["what a run left"] = (
            "a run that ended in the middle has left something stopped or moved, and it cannot be put back yet."
            " Next: `docker logs stackward`"
        )
    alone = left_alone.look(settings, found.artifacts)
    for one in reversed(alone):  # of each kind the first one is told
        conditions[f"a record ({one.kind})"] = f"{one.text}. Next: `stackward check` names all that were left alone"
    spaces = _spaces(settings, conditions)
    view = View(
        at=now,
        stacks=stacks,
        problems=problems,
        spaces=spaces,
        backups=() if found.unreadable else tuple(_of_kind(found, kind) for kind in ArtifactKind),
        damaged=sum(found.is_damaged(artifact) for artifact in found.artifacts),
        open_undo=open_undo,
        docker_answers=docker_answers,
        intervals=dict(intervals),
        left_alone=left_alone.counted(alone),
    )
    return Look(view, conditions)


def _remembered(store: Store) -> tuple[StackFacts, ...]:
    before = store.facts().view
    return tuple(
        replace(stack, state=State.UNPROTECTED.value, cause=Cause.NO_DOCKER_ROOT.value)
        if stack.state in (State.PROTECTED, State.UNPROTECTED)
        else stack
        for stack in (before.stacks if before else ())
    )


def _stacks(
    settings: Settings,
    store: Store,
    discovery: Discovery,
    found: Backups,
    now: datetime,
    conditions: dict[str, str],
) -> tuple[StackFacts, ...]:
    held = store.holds()
    verdicts = judged(settings, store, discovery.stacks, now, found)
    facts = [
        _stack(stack, verdict, found, held=stack.name in held)
        for stack, verdict in zip(discovery.stacks, verdicts, strict=True)
    ]
    for stack, verdict in zip(discovery.stacks, verdicts, strict=True):
        name = display(stack.name)
        if verdict.cause is Cause.OLD:
            conditions[f"the backup of {name}"] = f"{name} is not protected: {'; '.join(verdict.reasons)}."
        if stack.opted_in and stack.policy.backup is None and stack.resolved and not settings.backup_default:
            conditions[f"the labels of {name}"] = (
                f"{name} no longer says that it is backed up; it goes on being backed up."
                f" If that is meant: `stackward accept {name}`"
            )
    for name in (verdict.stack for verdict in vanished(store, discovery.stacks, found)):
        facts.append(StackFacts(name, State.UNPROTECTED.value, Cause.GONE.value, held=name in held))
        conditions[f"the directory of {display(name)}"] = (
            f"{display(name)} was backed up, and its directory is gone."
            f" If that is meant: `stackward accept {display(name)}`"
        )
    return tuple(facts)


def _stack(stack: Stack, verdict: Verdict, found: Backups, *, held: bool) -> StackFacts:
    good = found.data_of(stack.name)
    trees = good.trees(stack.name) if good and good.index else ()
    return StackFacts(
        name=stack.name,
        state=verdict.state.value,
        cause=verdict.cause.value if verdict.cause else "",
        has_data=bool(stack.covered_trees),
        held=held,
        problems=len(stack.problems),
        data_at=good.at(stack.name) if good else None,
        data_bytes=sum(tree.bytes for tree in trees) if trees else None,
        data_files=sum(tree.files for tree in trees) if trees else None,
        containers=tuple(_container(one) for one in stack.containers if not one.one_off),
    )


def _container(container: Container) -> ContainerFacts:
    healthy = {"healthy": True, "unhealthy": False}.get(container.health)
    running = container.state == "running"
    return ContainerFacts(container.service, container.name, running, healthy, container.restart_count)


def _spaces(settings: Settings, conditions: dict[str, str]) -> tuple[SpaceFacts, ...]:
    try:
        found = os.statvfs(settings.backup_root)
    except OSError:
        return ()
    free = found.f_bavail * found.f_frsize
    if free < settings.minimum_free_bytes:
        conditions["the room in BACKUP_ROOT"] = (
            f"BACKUP_ROOT has {format_bytes(free)} free, {format_bytes(settings.minimum_free_bytes)} are the least:"
            " backups are refused. Next: `stackward prune --replaced`"
        )
    return (SpaceFacts(BACKUP_ROOT, free, found.f_blocks * found.f_frsize, settings.minimum_free_bytes),)


def _of_kind(found: Backups, kind: ArtifactKind) -> BackupFacts:
    good = found.good(kind)
    count = sum(artifact.kind is kind and not artifact.replaced for artifact in found.artifacts)
    return BackupFacts(kind.value, count, good.made_at if good else None, good.size_bytes if good else None)
