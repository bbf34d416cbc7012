"""Makes a stack's data stand still, and lets it go on: pause or stop of its containers, and for how long that was."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from stackward.core.errors import StackwardError
from stackward.core.model import Container, Quiesce, Service, Stack, Tree
from stackward.stacks import membership
from stackward.steps import crashpoints
from stackward.steps.undo import Step, Undo
from stackward.tools.docker import Docker, DockerError, DockerUnavailableError, NotFoundError


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
    mode_of = _modes(stack, one_snapshot, trees)
    pause, stop = [], []
    for container in _dependents_first(stack.running, stack.services):
        if container.state == "paused":  # somebody else's decision: it stands still, and must stay so
            continue
        mode = mode_of(container.service)
        if mode is Quiesce.PAUSE:
            pause.append(container)
        elif mode is Quiesce.STOP:
            stop.append(container)
    reason = "one snapshot holds everything" if one_snapshot else "no single snapshot holds everything"
    return Plan(tuple(pause), tuple(stop), reason)


def require_known(docker: Docker | None, stack: Stack, one_snapshot: bool, trees: Sequence[Tree]) -> None:
    """Without Docker nobody knows what runs: go on only where nothing would have to stand still, be called or dumped.

    Raises:
        DockerUnavailableError: a copy might be of data that is being written.
    """
    if docker is not None:
        return
    mode_of = _modes(stack, one_snapshot, trees)
    called = {one.name for one in stack.services if one.policy.pre or one.policy.post or one.policy.dumps}
    named = called | {one.name for one in stack.services} | {name for tree in trees for name in tree.services}
    if needing := sorted(name for name in named if name in called or mode_of(name) is not Quiesce.NONE):
        raise DockerUnavailableError(
            f"no Docker Engine answers, and {', '.join(needing)} may be at work: nothing was copied",
            hint="is Docker's socket mounted into the container? `stackward check` says more",
        )


def refreshed(docker: Docker | None, stack: Stack) -> Stack:
    """The stack with its containers as they are now: since it was found, others may have started or stopped some."""
    if docker is None:
        return stack
    now = membership.members(docker.containers(stack.project), stack.directory, stack.project)
    return replace(stack, containers=now)


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


def require_still(docker: Docker | None, stack: Stack, one_snapshot: bool, trees: Sequence[Tree]) -> None:
    """To be called before the stack goes on: whatever had to stand still does so yet.

    Raises:
        StackwardError: somebody started it meanwhile (a watchdog, an update), and the copy may be of half written data.
    """
    at_work = plan(refreshed(docker, stack), one_snapshot, trees)
    if names := [container.name for container in (*at_work.stop, *at_work.pause)]:
        raise StackwardError(
            f"somebody started {', '.join(names)} while its data was copied",
            hint="keep what restarts containers by itself (autoheal, Watchtower) away from it at that time",
        )


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
        except DockerError as error:
            hint = "look at its log: one that keeps restarting cannot be paused. Or set stackward.backup.quiesce: stop"
            raise StackwardError(f"{container.name} cannot be paused: {error.message}", hint=hint) from error
    return still


def _modes(stack: Stack, one_snapshot: bool, trees: Sequence[Tree]) -> Callable[[str], Quiesce]:
    """What a service has to do while `trees` are read, with `auto` decided; also one that its compose file lost."""
    writers = {service for tree in trees if tree.writable for service in tree.services}
    policies = {service.name: service.policy.quiesce for service in stack.services}

    def mode_of(name: str) -> Quiesce:
        mode = policies.get(name, Quiesce.AUTO)
        if mode is Quiesce.AUTO:
            return Quiesce.STOP if name in writers and not one_snapshot else Quiesce.NONE
        return mode

    return mode_of


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
