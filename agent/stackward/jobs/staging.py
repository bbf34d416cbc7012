"""staging: keeps the staging instances running on last night's data.

The nightly rebuild makes the new snapshot first, while the instances run; then it stops them, swaps the names, and starts them.
Whatever goes wrong on the way, they run again: on tonight's data, or on last night's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

from stackward.config import Settings
from stackward.core.errors import RefusedError, StackwardError
from stackward.core.model import JobResult, Outcome, Stack, StackResult, display
from stackward.core.progress import Progress
from stackward.core.staging import WAIT_SECONDS
from stackward.core.unit_names import STAGING_TARGET
from stackward.steps import crashpoints
from stackward.steps.backup.sources import NIGHTLY
from stackward.steps.instance import healthy, instances, leftovers, staging, staging_look
from stackward.steps.instance.instances import Hands, Trouble
from stackward.steps.instance.staging import Plan
from stackward.steps.undo import Step, Undo
from stackward.steps.volume import snapshots
from stackward.steps.volume.nightly_snapshot import NEW, rebuild_nightly
from stackward.tools.docker import Docker, DockerError
from stackward.tools.host import BridgeError, BridgeUnavailableError


@dataclass(frozen=True, slots=True)
class Means:
    """What the job works with. `cleaned_seconds` is how long it waits for the space of last night's snapshot."""

    settings: Settings
    docker: Docker | None
    undo: Undo
    progress: Progress
    cleaned_seconds: float = snapshots.WAIT_SECONDS

    def reach(self, point: str) -> None:
        crashpoints.reach(point, self.settings.crash_point)


@dataclass(slots=True)
class _Downtime:
    """When the instances went down, what went wrong with that, and what of last night's is in use all the same."""

    began: float = 0.0
    troubles: tuple[str, ...] = ()
    swap_seconds: float = 0.0
    holding: Sequence[str] = ()


def refresh(means: Means, stacks: Sequence[Stack], *, dry_run: bool = False) -> JobResult:
    """Make `.nightly` anew and start every instance on it. The caller holds the locks of staging and of the volume.

    Raises:
        RefusedError: the volume can have no snapshots, or Docker does not answer.
        StackwardError: no snapshot could be made; the instances were not touched.
    """
    if not any(stack.policy.staging for stack in stacks) and not instances.generated(means.settings):
        return JobResult(Outcome.SKIPPED, ("no stack has staging on: the label stackward.staging",))
    snapshots.require(means.settings.volume)
    hands = _hands(means)
    plans = staging.plans(means.settings, hands.docker, stacks, fresh=True, routes=() if dry_run else _routes(hands))
    if dry_run:
        return _planned(plans)
    wanted = [one for one in plans if not one.refusals]
    downtime = _Downtime()
    parts: list[StackResult] = []
    means.progress.step("making the new snapshot")
    try:
        with means.undo.noted(".nightly is made anew", [Step("delete", str(means.settings.volume / NEW))]):
            deleted = rebuild_nightly(
                means.settings.volume,
                _stopped(means, hands, plans, downtime, parts),
                skip=means.settings.snapshot_skip,
                mounted=lambda _old: downtime.holding,
                wait_seconds=means.cleaned_seconds,
                reached=means.reach,
            )
    except StackwardError as error:
        if not parts:
            raise
        # The instances run again, on the data that they had.
        return JobResult(Outcome.FAILED, (error.message,), tuple(parts))
    if not deleted.cleaned:
        used = ", ".join(deleted.held_by) or "nobody that can be told"
        downtime.troubles += (
            f"last night's snapshot is deleted, but its space is not free yet; it is used by: {used}",
        )
    details: dict[str, Any] = {
        "swap_seconds": round(downtime.swap_seconds, 3),
        "ports": {display(one.stack.name): [str(port) for port in one.ports] for one in wanted},
    }
    return _result([*parts, *_refused(plans)], downtime.troubles, details)


def up(means: Means, stacks: Sequence[Stack], names: Sequence[str]) -> JobResult:
    """Start the named stacks' instances (none named: all) on `.nightly` as it is.

    Raises:
        RefusedError: there is no `.nightly`, or Docker does not answer.
    """
    hands = _hands(means)
    plans = staging.plans(means.settings, hands.docker, stacks, routes=_routes(hands))
    if not (means.settings.volume / NIGHTLY).is_dir() and any(not one.service for one in plans):
        raise RefusedError(
            "there is no .nightly on the volume yet", hint="`stackward staging refresh` makes it, and starts all"
        )
    chosen = [one for one in plans if not names or one.stack.name in names]
    parts = _start_all(means, hands, [one for one in chosen if not one.refusals], None)
    return _result([*parts, *_refused(chosen)], (), {})


def down(means: Means, stacks: Sequence[Stack], names: Sequence[str]) -> JobResult:
    """Stop the named stacks' instances (none named: all), until they are started or the next night."""
    hands = _hands(means)
    plans = staging.plans(means.settings, hands.docker, stacks)
    if not names:
        return _all_down(plans, instances.stop(hands, plans))
    parts = []
    for one in plans:
        if one.stack.name in names:
            try:
                instances.stop_one(hands, one)
                parts.append(StackResult(one.stack.name, Outcome.OK))
            except StackwardError as error:
                parts.append(StackResult(one.stack.name, Outcome.FAILED, (error.message,)))
    return _result(parts, (), {})


def _all_down(plans: Sequence[Plan], troubles: Sequence[Trouble]) -> JobResult:
    """Only an instance that could not be stopped has failed; what the target says besides is no instance's fault."""
    parts = []
    for one in plans:
        its = tuple(trouble.said for trouble in troubles if trouble.stack == one.stack.name)
        parts.append(StackResult(one.stack.name, Outcome.FAILED if its else Outcome.OK, its))
    planned = {one.stack.name for one in plans}
    return _result(parts, [str(trouble) for trouble in troubles if trouble.stack not in planned], {})


@contextmanager
def _stopped(
    means: Means, hands: Hands, plans: Sequence[Plan], downtime: _Downtime, parts: list[StackResult]
) -> Iterator[None]:
    """The body runs while every instance is down. They start again however it ends; `parts` says how that went."""
    wanted = [one for one in plans if not one.refusals]
    for one in wanted:
        if not one.service and not (one.directory / staging.COMPOSE_FILE).exists():
            staging.write(one)  # else a crash would leave nothing to start
    with means.undo.noted("staging instances are down for the swap", instances.ways_back(hands, wanted)):
        downtime.began = time.monotonic()
        means.progress.step("stopping the staging instances")
        try:
            downtime.troubles = tuple(map(str, instances.stop(hands, plans)))
            downtime.holding = snapshots.mounted_by(hands.docker)(means.settings.volume / NIGHTLY)
            means.reach("staging-stopped")
            began = time.monotonic()
            yield
            downtime.swap_seconds = time.monotonic() - began
            means.reach("staging-swapped")
            instances.forget_others(hands, plans)
        finally:
            parts += _start_all(means, hands, wanted, downtime.began)
            downtime.troubles += tuple(_start_users_units(hands))


def _start_all(means: Means, hands: Hands, wanted: Sequence[Plan], began: float | None) -> list[StackResult]:
    """Side by side: most of it is waiting, and one that never becomes well holds nobody up."""
    means.progress.step(f"starting {len(wanted)} staging instances")
    with ThreadPoolExecutor(instances.AT_ONCE) as pool:
        return list(pool.map(lambda one: _start(hands, one, began), wanted))


def _start(hands: Hands, chosen: Plan, began: float | None) -> StackResult:
    name = chosen.stack.name
    wrong = _started(hands, chosen)
    still = None if began is None else time.monotonic() - began
    if wrong:
        return StackResult(name, Outcome.FAILED, tuple(wrong), standstill_seconds=still)
    left = () if chosen.service else leftovers.remove_stores(hands.docker, chosen.project, chosen.model)
    return StackResult(name, Outcome.WARN if left else Outcome.OK, tuple(left), standstill_seconds=still)


def _started(hands: Hands, chosen: Plan) -> list[str]:
    """Start it, without what it had before its stack changed. Returns what is wrong; what crashes then is at rest."""
    derived = not chosen.service
    try:
        if derived:
            leftovers.remove_services(hands.docker, chosen.project, chosen.model)
        before = healthy.restart_counts(hands.docker, chosen.project)
        wrong = instances.start(hands, chosen, before, limit_seconds=chosen.wait_seconds(WAIT_SECONDS))
        if wrong and derived:
            leftovers.rest(hands.docker, chosen.project, before)
    except DockerError as error:
        return [error.message]
    return wrong


def _start_users_units(hands: Hands) -> Iterator[str]:
    """Units of the user's own hang on the target. That one of them fails says nothing of our instances."""
    if hands.bridge is None:
        return
    try:
        hands.bridge.start(STAGING_TARGET)
    except (BridgeError, BridgeUnavailableError) as error:
        yield f"{STAGING_TARGET}: {error.message}"


def _hands(means: Means) -> Hands:
    if means.docker is None:
        raise RefusedError("no Docker Engine answers: staging instances cannot be started", hint="start Docker")
    return Hands.find(means.settings, means.docker)


def _routes(hands: Hands) -> tuple[IPv4Network, ...]:
    return staging_look.host_routes(hands.settings, hands.docker, staging.own_image(hands.docker))


def _refused(plans: Sequence[Plan]) -> list[StackResult]:
    return [
        StackResult(one.stack.name, Outcome.FAILED, tuple(str(refusal) for refusal in one.refusals))
        for one in plans
        if one.refusals
    ]


def _planned(plans: Sequence[Plan]) -> JobResult:
    shown = {
        display(one.stack.name): {
            "refused": [str(refusal) for refusal in one.refusals],
            "notes": list(one.notes),
            "ports": [str(port) for port in one.ports],
        }
        for one in plans
    }
    return JobResult(Outcome.OK, details={"dry_run": True, "instances": shown})


def _result(parts: Sequence[StackResult], troubles: Sequence[str], details: dict[str, Any]) -> JobResult:
    outcome = Outcome.worst([part.outcome for part in parts])
    if troubles and outcome is Outcome.OK:
        outcome = Outcome.WARN
    return JobResult(outcome, tuple(troubles), tuple(parts), details=details)
