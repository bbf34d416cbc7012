"""Makes a stack's data stand still, and lets it go on: pause or stop of its containers, and for how long that was."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from stackward.core.errors import StackwardError
from stackward.core.model import Container, Quiesce, Service, Stack, Tree
from stackward.steps import crashpoints
from stackward.steps.undo import Step, Undo
from stackward.tools.docker import Docker, NotFoundError


@dataclass(frozen=True, slots=True)
class Plan:
    """Which containers are paused and which stopped, in that order (dependents first), and why."""

    pause: tuple[Container, ...] = ()
    stop: tuple[Container, ...] = ()
    reason: str = ""

    @property
    def empty(self) -> bool:
        return not (self.pause or self.stop)


@dataclass(slots=True)
class Standstill:
    """`seconds` is set when the stack goes on again; `remaining` is what is left of the longest it may stand still."""

    limit_seconds: float
    _began: float = field(default_factory=time.monotonic)
    seconds: float | None = None

    @property
    def remaining(self) -> float:
        left = self.limit_seconds - (time.monotonic() - self._began)
        if left <= 0:
            raise StackwardError(
                f"the stack stood still for more than {self.limit_seconds:.0f} s",
                hint="raise stackward.backup.max-standstill, or move its data to Btrfs",
            )
        return left


def plan(stack: Stack, one_snapshot: bool, trees: Sequence[Tree]) -> Plan:
    """What must stand still while `trees` are read.

    `one_snapshot` says that a single snapshot holds all of them, so that they are consistent as they are: then `auto`
    needs nothing. Otherwise `auto` stops the services that can write to any of them.
    """
    writers = {service for tree in trees if tree.writable for service in tree.services}
    policies = {service.name: service.policy.quiesce for service in stack.services}
    pause, stop = [], []
    for container in _dependents_first(stack.running, stack.services):
        if container.state == "paused":  # somebody else's decision: it stands still, and must stay so
            continue
        mode = policies.get(container.service, Quiesce.AUTO)
        if mode is Quiesce.AUTO:
            mode = Quiesce.STOP if container.service in writers and not one_snapshot else Quiesce.NONE
        if mode is Quiesce.PAUSE:
            pause.append(container)
        elif mode is Quiesce.STOP:
            stop.append(container)
    reason = "one snapshot holds everything" if one_snapshot else "no single snapshot holds everything"
    return Plan(tuple(pause), tuple(stop), reason)


def whole_stack(stack: Stack) -> Plan:
    """Stop all of it, for a restore."""
    return Plan(stop=tuple(_dependents_first(stack.running, stack.services)), reason="restore")


@contextmanager
def quiesced(
    docker: Docker | None, undo: Undo, stack: Stack, chosen: Plan, limit_seconds: float, crash_point: str = ""
) -> Iterator[Standstill]:
    """The body runs while the stack stands still. It goes on afterwards in any case.

    Raises:
        DockerError: a container could not be paused or stopped; those that were go on again.
        WayBackError: one could not be let go on; its undo record stays.
    """
    if chosen.empty or docker is None:
        still = Standstill(limit_seconds)
        yield still
        return
    stopped = [Step("start", container.id) for container in reversed(chosen.stop)]
    paused = [Step("unpause", container.id) for container in reversed(chosen.pause)]
    began = time.monotonic()
    still = Standstill(limit_seconds)
    try:
        with undo.promised(f"stack {stack.name} stands still", [*paused, *stopped]) as stopping:
            crashpoints.reach("data-undo-written", crash_point)
            still = _stand_still(docker, chosen, still, stopping)
            crashpoints.reach("data-quiesced", crash_point)
            yield still
    finally:
        still.seconds = time.monotonic() - began


def _stand_still(docker: Docker, chosen: Plan, still: Standstill, stopping: set[str]) -> Standstill:
    for container in chosen.stop:
        stopping.add(container.id)
        docker.stop(container.id)
        _ = still.remaining
    for container in chosen.pause:
        try:
            docker.pause(container.id)
        except NotFoundError:
            continue
    return still


def _dependents_first(containers: Sequence[Container], services: Sequence[Service]) -> list[Container]:
    """Containers so that each comes before what it depends on; a circle is cut where it is met."""
    needs = {service.name: service.depends_on for service in services}
    order: list[str] = []
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name in seen:
            return
        seen.add(name)
        for needed in needs.get(name, ()):
            visit(needed)
        order.append(name)

    for name in sorted({container.service for container in containers}):
        visit(name)
    rank = {name: position for position, name in enumerate(order)}
    return sorted(containers, key=lambda container: -rank.get(container.service, 0))
