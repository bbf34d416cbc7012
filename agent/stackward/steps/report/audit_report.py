"""docker-audit.json: what an audit found, as a document. docs/jobs.md has the schema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from stackward import __version__
from stackward.core import exposure
from stackward.core.exposure import Published
from stackward.core.model import Container, Stack, display
from stackward.core.remarks import Finding, Image, Severity
from stackward.stacks import Discovery
from stackward.steps.report.coverage import Coverage
from stackward.tools import compose_lint
from stackward.tools.compose_lint import Linted
from stackward.tools.host import HostFacts

FORMAT = 1
# Labels whose values are written down; of all others only the name is.
_OPEN_LABELS = ("stackward.", "com.centurylinklabs.watchtower.", "org.opencontainers.image.")


@dataclass(slots=True)
class Facts:
    """What was found. `missing` says in words what could not be, `blind` if that is Docker.

    `own_project` is the one that we run in ourselves.
    """

    containers: tuple[Container, ...] = ()
    images: tuple[Image, ...] = ()
    host: HostFacts | None = None
    linted: dict[str, Linted] = field(default_factory=dict)
    covered: dict[str, list[Coverage]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    blind: str = ""
    own_project: str = ""

    def published(self, discovery: Discovery) -> list[Published]:
        """The ports that containers have published, with who listens on the host."""
        return exposure.published(discovery.stacks, self.containers, self.host.listeners if self.host else ())


def make_document(
    discovery: Discovery, facts: Facts, findings: Sequence[Finding], *, host_name: str, now: datetime
) -> dict[str, Any]:
    """The report, as docs/jobs.md has it."""
    published = facts.published(discovery)
    listeners = facts.host.listeners if facts.host else ()
    return {
        "format": FORMAT,
        "job": "audit",
        "at": now.isoformat(timespec="seconds"),
        "host": host_name,
        "stackward": __version__,
        "missing": facts.missing,
        "summary": _summary(discovery, facts, findings, published),
        "findings": [
            {"severity": one.severity.value, "topic": one.topic, "stack": display(one.stack), "text": one.text}
            for one in findings
        ],
        "ports": [_port(one, seen=facts.host is not None) for one in published],
        "listeners": [
            {"protocol": one.protocol, "address": one.address, "port": one.port, "programs": list(one.programs)}
            for one in exposure.others(listeners, [entry.port for entry in published])
        ],
        "images": [_image(image, now) for image in facts.images],
        "stacks": [_stack(stack, facts) for stack in discovery.stacks],
        "outside": [
            {
                "project": display(one.project),
                "directory": display(one.directory),
                "containers": one.containers,
                "running": one.running,
                "why": one.reason,
            }
            for one in discovery.outside
        ],
    }


def _summary(
    discovery: Discovery, facts: Facts, findings: Sequence[Finding], published: Sequence[Published]
) -> dict[str, Any]:
    remarked = [remark.severity for linted in facts.linted.values() for remark in linted.remarks]
    return {
        "stacks": len(discovery.stacks),
        "backed_up": sum(stack.opted_in for stack in discovery.stacks),
        "containers": len(facts.containers),
        "running": sum(container.state == "running" for container in facts.containers),
        "images": len(facts.images),
        "ports": len(published),
        "ports_on_all_addresses": sum(one.reach == "all" for one in published),
        "invalid_stacks": sum(not stack.resolved for stack in discovery.stacks),
        "findings": {severity.value: sum(one.severity is severity for one in findings) for severity in Severity},
        "lint": {severity: remarked.count(severity) for severity in compose_lint.SEVERITIES},
    }


def _port(one: Published, *, seen: bool) -> dict[str, Any]:
    return {
        "protocol": one.port.protocol,
        "address": one.port.address,
        "port": one.port.port,
        "reach": one.reach,
        "stack": display(one.stack),
        "container": display(one.container.name),
        "service": display(one.container.service),
        "container_port": one.port.container_port,
        "listening": one.listener is not None if seen else None,
        "programs": list(one.listener.programs) if one.listener else [],
    }


def _image(image: Image, now: datetime) -> dict[str, Any]:
    return {
        "image": display(image.name),
        "id": image.id,
        "digests": list(image.digests),
        "tags": list(image.tags),
        "created_at": image.created_at.isoformat(timespec="seconds") if image.created_at else None,
        "age_days": image.age_days(now),
        "size_bytes": image.size_bytes,
        "containers": [display(container.name) for container in image.containers],
    }


def _stack(stack: Stack, facts: Facts) -> dict[str, Any]:
    linted = facts.linted.get(stack.name, Linted())
    return {
        "name": display(stack.name),
        "directory": display(stack.directory),
        "project": display(stack.project),
        "valid": stack.resolved,
        "problems": [
            {"message": one.message, "hint": one.hint, "service": display(one.service), "key": one.key}
            for one in stack.problems
        ],
        "lint": [
            {
                "severity": one.severity,
                "rule": one.rule,
                "service": display(one.service),
                "message": display(one.message),
                "file": display(one.file),
                "line": one.line,
            }
            for one in linted.remarks
        ],
        "lint_errors": [display(text) for text in linted.errors],
        "services": [
            {
                "name": display(service.name),
                "image": display(service.image),
                "labels": {
                    display(key): display(value) if key.startswith(_OPEN_LABELS) else None
                    for key, value in sorted(service.labels.items())
                },
            }
            for service in stack.services
        ],
        "backed_up": stack.opted_in,
        "why": stack.opted_reason,
        "trees": [_tree(one) for one in facts.covered.get(stack.name, ())],
    }


def _tree(one: Coverage) -> dict[str, Any]:
    return {
        "name": display(one.tree.mount_name),
        "kind": one.tree.kind.value,
        "source": display(one.tree.source),
        "path": display(one.tree.path),
        "volume": display(one.tree.volume) if one.tree.volume else None,
        "writable": one.tree.writable,
        "covered": bool(one.covered_by),
        "covered_by": one.covered_by,
        "why_not": one.why_not,
        "last_backup": one.last_backup or None,
    }
