"""Proofs that a service works: what its label asks for, or what can be told of ports that answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stackward.core.model import Container, Service, display
from stackward.core.staging import PROXY
from stackward.tools.docker import Docker, DockerError, HookTimeout

_COMMAND_SECONDS = 600.0
_WEB_SECONDS = 60.0
_WEB = re.compile(r":(\d{1,5})(/\S*)?")


@dataclass(frozen=True, slots=True)
class Proof:
    """What was tried of a service, and what came of it."""

    service: str
    good: bool
    said: str

    def __str__(self) -> str:
        return f"{display(self.service)}: {self.said}"


def prove(
    docker: Docker, services: Sequence[Service], model: Mapping[str, Any], containers: Sequence[Container]
) -> list[Proof]:
    """Probe those of the services that run. `model` is production's, whose published ports are worth a try.

    A service that has nothing to be probed by is proven by its health alone, which others look at.
    """
    running = {one.service: one for one in containers if one.state == "running" and one.service != PROXY}
    prober = next((one for one in containers if one.service == PROXY and one.state == "running"), None)
    found: list[Proof] = []
    for service in services:
        container = running.get(service.name)
        if container is None:
            continue
        if service.policy.probe:
            found.append(_labelled(docker, service, container, prober))
        elif prober is not None:
            ports = _ports((model.get("services") or {}).get(service.name) or {})
            found += [_web(docker, prober, service.name, port, "") for port in ports]
    return found


def is_command(probe: str) -> bool:
    """Whether it is run in the service's own container, which needs nothing else of the stack."""
    return bool(probe) and not _WEB.fullmatch(probe)


def _labelled(docker: Docker, service: Service, container: Container, prober: Container | None) -> Proof:
    if web := _WEB.fullmatch(service.policy.probe):
        if prober is None:
            return Proof(
                service.name, good=False, said="no container to probe from: the appliance's image is not known"
            )
        return _web(docker, prober, service.name, int(web[1]), web[2] or "/")
    return _ran(docker, service.name, container, service.policy.probe)


def _web(docker: Docker, prober: Container, name: str, port: int, path: str) -> Proof:
    command = ["python3", "-m", "stackward.tools.web_probe", name, str(port), *([path] if path else [])]
    try:
        done = docker.exec(prober.id, command, timeout_seconds=_WEB_SECONDS)
    except (DockerError, HookTimeout) as error:
        return Proof(name, good=False, said=error.message)
    return Proof(name, done.exit_code == 0, display(done.output_tail.strip()))


def _ran(docker: Docker, name: str, container: Container, command: str) -> Proof:
    try:
        done = docker.exec(container.id, ["sh", "-c", command], timeout_seconds=_COMMAND_SECONDS)
    except (DockerError, HookTimeout) as error:
        return Proof(name, good=False, said=error.message)
    if done.exit_code:
        said = display(done.output_tail.strip())[-500:]
        return Proof(name, good=False, said=f"the probe ended with exit code {done.exit_code}: {said}")
    return Proof(name, good=True, said="its probe succeeds")


def _ports(definition: Mapping[str, Any]) -> list[int]:
    ports = [port for port in definition.get("ports") or [] if str(port.get("protocol") or "tcp") == "tcp"]
    return list(dict.fromkeys(int(port["target"]) for port in ports if port.get("target")))
