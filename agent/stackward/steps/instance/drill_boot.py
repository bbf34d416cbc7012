"""A drill's instance is booted: its databases first, proven while nothing else can write to them, then the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from stackward.core import images
from stackward.core.counts import Count, Counted, judge
from stackward.core.errors import StackwardError
from stackward.core.model import Service, Stack, display
from stackward.core.staging import PROXY
from stackward.steps.instance import databases, drill_config, healthy, probes, troubles
from stackward.steps.instance.staging import Plan
from stackward.tools import compose
from stackward.tools.docker import Docker


@dataclass(frozen=True, slots=True)
class Tools:
    """`stack` is as its backup has it, with data that stood still `at`; `before` is what its last proof counted.

    `step` hears what is being done, `reach` that everything was started.
    """

    docker: Docker
    stack: Stack
    at: datetime
    before: Counted | None
    limit_seconds: float
    step: Callable[[str], None]
    reach: Callable[[str], None]


@dataclass(slots=True)
class Booted:
    """What was seen. It is well unless something is `wrong`; `measure` is what the next drill is held against then."""

    proofs: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)
    measure: tuple[Count, ...] = ()


def boot(tools: Tools, plan: Plan) -> Booted:
    """Start the instance, wait until it is well, probe it. What is wrong ends it; it is left as it is then."""
    seen = Booted()
    services = [service for service in tools.stack.services if service.name in plan.services]
    first = [service for service in services if goes_first(service, _definition(tools.stack.raw, service))]
    held = _held(services, tools.stack.raw, plan.model)
    name = display(tools.stack.name)
    proven = set()
    # One that has nothing of its own may be another one's client: it may write.
    for service in sorted(first, key=lambda one: not held.get(one.name)):
        tools.step(f"{name}: starting {display(service.name)}, and counting what is in it")
        if not _start(tools, plan, (service.name,), seen):
            return seen
        if _prove_database(tools, plan, service, held, seen):
            proven.add(service.name)
    _judge(tools, seen)
    if seen.wrong:
        return seen
    tools.step(f"{name}: starting it")
    if not _start(tools, plan, (), seen):
        return seen
    tools.step(f"{name}: probing it")
    rest = [service for service in services if service.name not in proven]
    tried = probes.prove(tools.docker, rest, tools.stack.raw, tools.docker.containers(plan.project))
    seen.proofs += [str(proof) for proof in tried if proof.good]
    seen.wrong += [str(proof) for proof in tried if not proof.good]
    return seen


def goes_first(service: Service, definition: Mapping[str, Any]) -> bool:
    """Whether it is a database that is proven alone: by its own command or, PostgreSQL, by its rows."""
    is_postgres = databases.is_postgres(service, definition)
    if not service.policy.probe:
        return is_postgres
    is_mariadb = images.database(service.image) == "mariadb" or any(d.kind == "mariadb" for d in service.policy.dumps)
    return probes.is_command(service.policy.probe) and (is_postgres or is_mariadb)


def _start(tools: Tools, plan: Plan, only: Sequence[str], seen: Booted) -> bool:
    """Start some services, or all, and wait until they are well."""
    names = tuple(only) or plan.services
    try:
        compose.up(plan.directory, only, wait_seconds=tools.limit_seconds)
        if not only:
            tools.reach("drill-started")
        found = healthy.wait(tools.docker, plan.project, names, limit_seconds=tools.limit_seconds)
    except StackwardError as error:
        seen.wrong += troubles.of_start(tools.docker, plan.project, names, error)
        return False
    seen.wrong += [f"{display(one.service)} {one.why}" for one in found if not one.good]
    if not only:
        healths = [f"{display(one.service)}: {one.why}" for one in found if one.good and one.service != PROXY]
        seen.proofs[:0] = healths
    return not seen.wrong


def _prove_database(
    tools: Tools, plan: Plan, service: Service, held: Mapping[str, frozenset[int]], seen: Booted
) -> bool:
    """Returns whether it is proven, or known that it cannot be: then nothing is left to be probed."""
    running = [one for one in tools.docker.containers(plan.project) if one.state == "running"]
    container = next((one for one in running if one.service == service.name), None)
    if container is None:
        return False
    if service.policy.probe:
        (tried,) = probes.prove(tools.docker, [service], tools.stack.raw, [container])
        (seen.proofs if tried.good else seen.wrong).append(str(tried))
        return True
    found = databases.count(
        tools.docker,
        container,
        service,
        _definition(plan.model, service),
        held,
        empty_below=str(plan.directory / drill_config.EMPTY),
        patience_seconds=tools.limit_seconds,
    )
    said = found.wrong or found.note or "; ".join(map(str, found.counts))
    (seen.wrong if found.wrong else seen.proofs).append(f"{display(service.name)}: {said}")
    seen.counts += found.counts
    return not found.note


def _judge(tools: Tools, seen: Booted) -> None:
    verdict = judge(tools.stack.name, Counted(tools.at, tuple(seen.counts)), tools.before)
    seen.wrong += verdict.wrong
    seen.warnings += verdict.warnings
    seen.measure = verdict.measure


def _held(
    services: Sequence[Service], production: Mapping[str, Any], instance: Mapping[str, Any]
) -> dict[str, frozenset[int]]:
    """The clusters of every PostgreSQL, also of one that is proven otherwise: others may be its clients."""
    found = [one for one in services if databases.is_postgres(one, _definition(production, one))]
    return {one.name: databases.clusters(_definition(instance, one)) for one in found}


def _definition(model: Mapping[str, Any], service: Service) -> Mapping[str, Any]:
    return (model.get("services") or {}).get(service.name) or {}
