"""Waits until the containers of a compose project are well, and says of each service whether it is.

`docker compose up --wait` alone does not tell: it takes a container that crashes again and again for a good one where there is
no healthcheck, and a task that ended well for a bad one.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from stackward.core.model import Container, display
from stackward.tools.docker import Docker, DockerError

POLL_SECONDS = 0.5
SETTLE_SECONDS = 3.0
RESTARTS = 3  # as often it may start anew meanwhile: its database may not have been there yet
_LOG_LINES = 5
_LOG_LETTERS = 500


@dataclass(frozen=True, slots=True)
class Health:
    """Of one service. `final` is False where it may still become well."""

    service: str
    good: bool
    why: str
    final: bool = True


def restart_counts(docker: Docker, project: str) -> dict[str, int]:
    """How often Docker has started each container of a project anew so far, by ID. Raises DockerError."""
    return {one.id: one.restart_count for one in docker.containers(project)}


def restarts_since(one: Container, before: Mapping[str, int]) -> int:
    """How often Docker has started it anew since those counts were taken; it counts from 0 where a person started it."""
    counted = before.get(one.id, 0)
    return one.restart_count - counted if one.restart_count >= counted else one.restart_count


def wait(
    docker: Docker,
    project: str,
    services: Collection[str],
    *,
    limit_seconds: float,
    settle_seconds: float = SETTLE_SECONDS,
    before: Mapping[str, int] | None = None,
) -> tuple[Health, ...]:
    """Return when every one of `services` is well, or one can no longer become so (then only those), or the time is up.

    Well is: healthy; running without a healthcheck and without a restart for `settle_seconds`; or ended with exit code 0.
    What was unhealthy may become well until the time is up: a database that recovers takes its time.

    `before` are the `restart_counts` when the start began: what was restarted until then says nothing of it.

    Raises:
        DockerError: Docker cannot be asked.
    """
    deadline = time.monotonic() + limit_seconds
    steady = _Steady(settle_seconds, before or {})
    while True:
        containers = [one for one in docker.containers(project) if not one.one_off and one.service in services]
        found = tuple(_judged(name, containers, steady) for name in sorted(services))
        hopeless = tuple(health for health in found if health.final and not health.good)
        if hopeless or all(health.good for health in found):
            found = hopeless or found  # what has not had its time yet is no reason
            break
        if time.monotonic() >= deadline:
            found = tuple(_at_the_end(health, limit_seconds) for health in found)
            break
        time.sleep(POLL_SECONDS)
    return tuple(health if health.good else _with_log(docker, health, containers) for health in found)


class _Steady:
    """Since when each container runs without a restart, as it was seen from here, and how often it had one."""

    def __init__(self, settle_seconds: float, before: Mapping[str, int]) -> None:
        self._settle_seconds = settle_seconds
        self._before = before
        self._since: dict[tuple[str, int], float] = {}

    def is_looping(self, container: Container) -> bool:
        return restarts_since(container, self._before) >= RESTARTS

    def is_settled(self, container: Container) -> bool:
        now = time.monotonic()
        return now - self._since.setdefault((container.id, container.restart_count), now) >= self._settle_seconds


def _judged(service: str, containers: list[Container], steady: _Steady) -> Health:
    """All of a service's containers must be well; the worst speaks for it."""
    found = [_judge(one, steady) for one in containers if one.service == service]
    if not found:
        return Health(service, good=False, why="has no container")
    return min(found, key=lambda health: (health.good, not health.final))


def _judge(one: Container, steady: _Steady) -> Health:
    if steady.is_looping(one):
        why = f"restarts again and again, last with exit code {one.exit_code}"
        return Health(one.service, good=False, why=why)
    if one.state in ("exited", "dead"):
        return _ended(one)
    if one.state == "running" and not one.health:
        settled = steady.is_settled(one)
        return Health(one.service, good=settled, why="running" if settled else "has just started", final=settled)
    good = one.state == "running" and one.health == "healthy"
    why = one.error or (one.health if one.state == "running" else one.state)
    return Health(one.service, good=good, why=why, final=good or bool(one.error))


def _ended(one: Container) -> Health:
    if one.exit_code == 0 and not one.error:
        return Health(one.service, good=True, why="ended well")
    why = "was killed: out of memory" if one.out_of_memory else one.error or f"ended with exit code {one.exit_code}"
    starts_again = one.restart_policy not in ("", "no") and one.state != "dead"
    return Health(one.service, good=False, why=why, final=not starts_again)


def _at_the_end(health: Health, limit_seconds: float) -> Health:
    if health.good:
        return health
    return Health(health.service, good=False, why=f"is {health.why} after {limit_seconds:.0f} s")


def last_words(docker: Docker, one: Container) -> str:
    """The last lines of what a container said, as one line that is not too long; "" where it said nothing."""
    try:
        words = [line.strip() for line in docker.logs(one.id, lines=_LOG_LINES).splitlines() if line.strip()]
    except DockerError:
        return ""
    return display(" / ".join(words))[-_LOG_LETTERS:]


def _with_log(docker: Docker, health: Health, containers: list[Container]) -> Health:
    """The last words of the container, beside what is wrong with it."""
    for one in containers:
        if one.service == health.service and (words := last_words(docker, one)):
            return Health(health.service, good=False, why=f"{health.why}: {words}")
    return health
