"""health: how the containers of every stack are: running, healthy, restarting, ended.

Told per stack; whoever runs it has people told when a stack's part fails and when it is fine again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from stackward.core import condition
from stackward.core.model import JobResult, Outcome, Stack, StackResult, display
from stackward.store import Store

RESTARTS_NOTE = "health-restarts"


@dataclass(frozen=True, slots=True)
class Plan:
    """What was found, and what is to be remembered: how often each container was started again so far, by its ID."""

    results: tuple[StackResult, ...]
    restarts: dict[str, int]


def run(
    *,
    store: Store,
    stacks: Sequence[Stack],
    docker_error: str = "",
    stopped_by_us: frozenset[str] = frozenset(),
    dry_run: bool = False,
) -> JobResult:
    """Look, compare with the last look, and remember this one. A stack that somebody stopped is no failure.

    `docker_error` says why the containers of `stacks` are not known; then nothing is said of any stack.
    """
    if docker_error:
        return JobResult(Outcome.FAILED, (f"the containers cannot be seen: {docker_error}",))
    plan = make_plan(stacks, remembered(store), stopped_by_us)
    if not dry_run:
        store.set_note(RESTARTS_NOTE, json.dumps(plan.restarts, sort_keys=True))
    outcome = Outcome.worst([part.outcome for part in plan.results])
    return JobResult(outcome, _reasons(plan.results), plan.results)


def make_plan(stacks: Sequence[Stack], before: dict[str, int], stopped_by_us: frozenset[str] = frozenset()) -> Plan:
    return Plan(
        tuple(condition.of_stack(stack, before, stopped_by_us) for stack in stacks),
        {container.id: container.restart_count for stack in stacks for container in stack.containers},
    )


def remembered(store: Store) -> dict[str, int]:
    """The last look; none where there was none, or what was kept of it cannot be read."""
    try:
        document = json.loads(store.note(RESTARTS_NOTE) or "{}")
        return {str(container): int(count) for container, count in document.items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def _reasons(parts: Sequence[StackResult]) -> tuple[str, ...]:
    if not parts:
        return ("there are no stacks",)
    failed = [display(part.stack) for part in parts if part.outcome is Outcome.FAILED]
    return (f"not well: {', '.join(failed)}",) if failed else ()
