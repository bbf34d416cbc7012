"""A drill's instance is booted: its databases first, proven while nothing else can write to them, then the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

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
    """What was seen. It is well unless something is `wrong`."""

    proofs: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)


def boot(tools: Tools, plan: Plan) -> Booted:
    """Start the instance, wait until it is well, probe it. What is wrong ends it; it is left as it is then."""
    seen = Booted()
    services = [service for service in tools.stack.services if service.name in plan.services]
    first = [service for service in services if _is_database(service, _definition(tools.stack.raw, service))]
    held = {service.name: databases.clusters(_definition(plan.model, service)) for service in first}
    name = display(tools.stack.name)
    # One that has nothing of its own may be another one's client: it may write.
    for service in sorted(first, key=lambda one: not held[one.name]):
        tools.step(f"{name}: starting {display(service.name)}, and counting what is in it")
        if not _start(tools, plan, (service.name,), seen):
            return seen
        _prove_database(tools, plan, service, held[service.name], seen)
    _judge(tools, seen)
    if seen.wrong:
        return seen
    tools.step(f"{name}: starting it")
    if not _start(tools, plan, (), seen):
        return seen
    tools.step(f"{name}: probing it")
    rest = [service for service in services if service not in first or _speaks_web(service)]
    tried = probes.prove(tools.docker, rest, tools.stack.raw, tools.docker.containers(plan.project))
    seen.proofs += [str(proof) for proof in tried if proof.good]
    seen.wrong += [str(proof) for proof in tried if not proof.good]
    return seen


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


def _prove_database(tools: Tools, plan: Plan, service: Service, held: frozenset[int], seen: Booted) -> None:
    running = [one for one in tools.docker.containers(plan.project) if one.state == "running"]
    container = next((one for one in running if one.service == service.name), None)
    if container is None or _speaks_web(service):
        return
    if service.policy.probe:
        (tried,) = probes.prove(tools.docker, [service], tools.stack.raw, [container])
        (seen.proofs if tried.good else seen.wrong).append(str(tried))
    elif databases.is_postgres(service, _definition(tools.stack.raw, service)):
        definition = _definition(plan.model, service)
        found = databases.count(
            tools.docker,
            container,
            definition,
            held,
            empty_below=str(plan.directory / drill_config.EMPTY),
            patience_seconds=tools.limit_seconds,
        )
        said = found.wrong or found.note or "; ".join(map(str, found.counts))
        (seen.wrong if found.wrong else seen.proofs).append(f"{display(service.name)}: {said}")
        seen.counts += found.counts


def _judge(tools: Tools, seen: Booted) -> None:
    verdict = judge(tools.stack.name, Counted(tools.at, tuple(seen.counts)), tools.before)
    seen.wrong += verdict.wrong
    seen.warnings += verdict.warnings


def _is_database(service: Service, definition: Mapping[str, Any]) -> bool:
    is_other = any(dump.kind == "mariadb" for dump in service.policy.dumps)
    return is_other or databases.is_postgres(service, definition)


def _speaks_web(service: Service) -> bool:
    return bool(service.policy.probe) and not probes.is_command(service.policy.probe)


def _definition(model: Mapping[str, Any], service: Service) -> Mapping[str, Any]:
    return (model.get("services") or {}).get(service.name) or {}
