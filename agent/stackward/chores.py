"""The jobs that look at the host and tidy up: each a step of its own, by its name. Data for the runner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackward.jobs import health, observability
from stackward.runner import Step

if TYPE_CHECKING:
    from collections.abc import Callable

    from stackward.core.model import JobResult
    from stackward.runner import RunContext
    from stackward.wiring import Appliance


def _health(appliance: Appliance) -> Step:
    def work(_context: RunContext) -> JobResult:
        held = appliance.undo.held_containers()  # before the containers are looked at, not after
        found = appliance.discover()
        return health.run(
            store=appliance.store, stacks=found.stacks, docker_error=found.docker_error, stopped_by_us=held
        )

    return Step("health", work)


def _observability(appliance: Appliance) -> Step:
    def work(context: RunContext) -> JobResult:
        found = appliance.discover()
        return observability.run(
            settings=appliance.settings,
            stacks=found.stacks,
            containers=appliance.docker.containers() if not found.docker_error else None,
            docker_error=found.docker_error,
            progress=context.progress,
        )

    return Step("observability", work)


CHORES: dict[str, Callable[[Appliance], Step]] = {"health": _health, "observability": _observability}
