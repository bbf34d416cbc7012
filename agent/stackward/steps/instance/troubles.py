"""Why an instance did not start, in words that somebody can act upon: the containers' own before those of Compose."""

from __future__ import annotations

import re
from collections.abc import Collection

from stackward.core.errors import StackwardError
from stackward.core.model import Container, display
from stackward.core.staging import PROXY
from stackward.steps.instance import healthy
from stackward.tools.docker import Docker, DockerError
from stackward.tools.process import CommandError

_PROGRESS = re.compile(
    r"\s*(Container|Network|Volume|Image|Service) \S+\s.*|\s*\S+ (Pulling|Pulled|Error|Interrupted)\s*"
)
_WARNING = re.compile(r'time="[^"]*" level=(warning|info|debug) ')
_NO_ROOM = ("have been fully subnetted", "non-overlapping IPv4 address pool")
_TAKEN = "Pool overlaps with other one on this address space"


def of_start(docker: Docker, project: str, services: Collection[str], error: StackwardError) -> list[str]:
    """What the containers say of it, or else Compose; what can be done about it is said, too."""
    if (own := of_containers(docker, project, services)) is not None:
        return own
    words = explained(words_of(error))
    return [words if words == error.message else f"Compose could not start it: {words}"]


def of_containers(docker: Docker, project: str, services: Collection[str]) -> list[str] | None:
    """One sentence for each service that is in trouble, with the last its container said; None where none is."""
    try:
        found = [one for one in docker.containers(project) if one.service in services and not one.one_off]
    except DockerError:
        return None
    told = {one.service: _said(docker, one, why) for one in found if (why := _trouble(one))}
    named = ((display(service) if service != PROXY else "its proxy", why) for service, why in sorted(told.items()))
    return [explained(f"{name} {why}") for name, why in named] or None


def explained(said: str) -> str:
    """What Docker said, and, where it is about subnets, how there can be one."""
    if any(words in said for words in _NO_ROOM):
        return (
            f"{said}; HINT: Docker has given all its subnets away: `docker network prune` frees those of no use,"
            " `default-address-pools` in /etc/docker/daemon.json gives it more and smaller ones"
        )
    if _TAKEN in said:
        return f"{said}; HINT: STACKWARD_STAGING_SUBNETS: a range that nothing else on the host uses"
    return said


def words_of(error: StackwardError) -> str:
    """The last of what Compose said, less its account of how far it got; of another error, its message."""
    if not isinstance(error, CommandError) or not error.stderr_tail.strip():
        return error.message
    lines = [line.strip() for line in error.stderr_tail.splitlines() if line.strip()]
    telling = [line for line in lines if not _PROGRESS.fullmatch(line) and not _WARNING.match(line)]
    return " / ".join(display(line) for line in dict.fromkeys(telling or lines[-1:]))[-500:]


def _trouble(one: Container) -> str:
    if one.state in ("exited", "dead") and (one.exit_code or one.error):
        return (
            "was killed: out of memory" if one.out_of_memory else one.error or f"ended with exit code {one.exit_code}"
        )
    if one.state == "restarting":
        return f"restarts again and again, last with exit code {one.exit_code}"
    if one.state == "created" and one.error:
        return f"could not be started: {one.error}"
    return "is unhealthy" if one.state == "running" and one.health == "unhealthy" else ""


def _said(docker: Docker, one: Container, why: str) -> str:
    words = healthy.last_words(docker, one)
    return f"{why}: {words}" if words else why
