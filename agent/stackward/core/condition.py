"""How a container is, and from that how its stack is. Pure.

What a person stopped is no failure: Docker starts `always` and `unless-stopped` containers again by itself, so one of
those that has ended was stopped; of any other one the exit code tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stackward.core.model import Container, Outcome, Stack, StackResult, display

_RESTARTED_BY_DOCKER = ("always", "unless-stopped")
# 128 + SIGINT, SIGKILL, SIGTERM: how a program that was told to stop ends.
_TOLD_TO_STOP = (130, 137, 143)
# Docker waits longer and longer between two attempts, a minute at most.
LOOP = 2


@dataclass(frozen=True, slots=True)
class Condition:
    """`outcome` is SKIPPED for a container that is not meant to run now; `text` says what is the matter."""

    outcome: Outcome
    text: str = ""


_FINE = Condition(Outcome.OK)
_AT_REST = Condition(Outcome.SKIPPED, "is stopped")


def of_container(container: Container, restarts_before: int | None = None) -> Condition:
    """`restarts_before` is how often Docker had started it again when somebody last looked; None: nobody did."""
    if container.state in ("running", "restarting"):
        return _restarting(container, restarts_before) or _running(container)
    if container.state == "paused":
        return Condition(Outcome.WARN, "is paused")
    if container.state == "dead":
        return Condition(Outcome.FAILED, "is dead: Docker could not remove it")
    return _ended(container)


def of_stack(
    stack: Stack, restarts_before: Mapping[str, int], stopped_by_us: frozenset[str] = frozenset()
) -> StackResult:
    """The worst of its containers. `restarts_before` is by container ID; `stopped_by_us` are IDs a backup stopped.

    A stack of which nothing runs and nothing failed is SKIPPED: somebody stopped it, or nobody started it.
    """
    lasting = [container for container in stack.containers if not container.one_off]
    if not lasting:
        return StackResult(stack.name, Outcome.SKIPPED, ("it has no containers",))
    found = [(one, of_container(one, restarts_before.get(one.id))) for one in lasting if one.id not in stopped_by_us]
    bad = [(one, how) for one, how in found if how.outcome in (Outcome.FAILED, Outcome.WARN)]
    reasons = [f"{_called(one)} {how.text}" for one, how in bad]
    outcome = Outcome.worst([how.outcome for _, how in bad])
    if any(one.runs or one.id in stopped_by_us for one in lasting):
        at_rest = [one for one, how in found if how is _AT_REST]
        reasons += [f"{_called(one)} is stopped, while others of the stack run" for one in at_rest]
        reasons += [f"{display(service)} has no container" for service in _missing(stack)]
        if outcome is Outcome.OK and reasons:
            outcome = Outcome.WARN
    elif not bad:
        return StackResult(stack.name, Outcome.SKIPPED, ("it is stopped",))
    return StackResult(stack.name, outcome, tuple(reasons))


def _running(container: Container) -> Condition:
    return Condition(Outcome.FAILED, "is unhealthy") if container.health == "unhealthy" else _FINE


def _restarting(container: Container, before: int | None) -> Condition | None:
    count = container.restart_count
    since = 0 if before is None else max(0, count - before)
    if container.state == "restarting" or since >= LOOP:
        why = ", out of memory" if container.out_of_memory else f", exit code {container.exit_code}"
        seen = f"{count} {'time' if count == 1 else 'times'} so far"
        return Condition(Outcome.FAILED, f"restarts in a loop ({seen}{why if container.state == 'restarting' else ''})")
    if since:
        return Condition(Outcome.WARN, "died and was started again by Docker")
    return None


def _ended(container: Container) -> Condition:
    """One that has run, or was only made."""
    if container.error:
        return Condition(Outcome.FAILED, f"could not be started: {container.error}")
    if container.state != "exited":
        return _AT_REST
    if container.out_of_memory:
        return Condition(Outcome.FAILED, "ran out of memory and was killed")
    if container.exit_code == 0 and container.restart_policy not in _RESTARTED_BY_DOCKER:
        return _FINE  # it did what it was to do
    if container.restart_policy in _RESTARTED_BY_DOCKER or container.exit_code in _TOLD_TO_STOP:
        return _AT_REST
    return Condition(Outcome.FAILED, f"ended with exit code {container.exit_code}")


def _missing(stack: Stack) -> list[str]:
    """Services that `docker compose up` would start, and that have no container at all."""
    present = {container.service for container in stack.containers}
    services = stack.raw.get("services") or {}
    return sorted(name for name, how in services.items() if name not in present and _is_wanted(how))


def _is_wanted(service: Mapping[str, object]) -> bool:
    deploy = service.get("deploy")
    replicas = deploy.get("replicas") if isinstance(deploy, Mapping) else None
    return not service.get("profiles") and service.get("scale", 1) != 0 and replicas != 0


def _called(container: Container) -> str:
    return display(container.name)
