"""audit: what runs here, how it is reached, made and backed up, and what of it a person should look at.

Written to docker-audit.json in the directory of logs, as docs/jobs.md has it: whole, or the last one stays. It holds no
values of variables, and of labels only those that are known to hold no secret.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from stackward.config import Settings
from stackward.core import remarks
from stackward.core.model import Container, JobResult, Outcome, Stack, display
from stackward.core.progress import Progress
from stackward.core.remarks import Finding, Image, Severity
from stackward.stacks import Discovery, places
from stackward.steps.report import coverage, report_files
from stackward.steps.report.audit_report import Facts, make_document
from stackward.tools import compose, compose_lint, filesystem
from stackward.tools.compose_lint import Linted
from stackward.tools.docker import Docker, DockerError
from stackward.tools.host import Bridge, BridgeError, BridgeUnavailableError
from stackward.tools.host_files import HostFiles

FILE = "docker-audit.json"


def run(
    *,
    settings: Settings,
    docker: Docker | None,
    bridge: Bridge,
    discovery: Discovery,
    host_name: str,
    now: datetime,
    progress: Progress,
    dry_run: bool = False,
) -> JobResult:
    """Look at everything, and write it down. What cannot be seen is told in the report, and makes it a warning.

    Raises:
        StackwardError: the report cannot be written.
    """
    facts = observe(settings, docker, bridge, discovery, now, progress)
    findings = find(discovery, facts, now)
    document = make_document(discovery, facts, findings, host_name=host_name, now=now)
    if not dry_run:
        report_files.write(settings.log_dir / FILE, document)
    bad = [finding for finding in findings if finding.severity is Severity.ERROR]
    reasons = [f"{display(one.stack)}: {one.text}" if one.stack else one.text for one in bad]
    reasons += [facts.blind] if facts.blind else []  # a host without the bridge is no less healthy for it
    details = document if dry_run else {"file": str(settings.log_dir / FILE), **_shown(document)}
    return JobResult(Outcome.WARN if reasons else Outcome.OK, tuple(reasons), details=details)


def observe(
    settings: Settings,
    docker: Docker | None,
    bridge: Bridge,
    discovery: Discovery,
    now: datetime,
    progress: Progress,
) -> Facts:
    facts = Facts()
    try:
        facts.containers = tuple(docker.containers()) if docker else ()
        facts.images = _images(docker, facts.containers) if docker else ()
        own = places.own_container(docker, filesystem.mounts())
        facts.own_project = own.project if own else ""
        unseen = "" if docker else discovery.docker_error or "no Docker Engine answers"
    except DockerError as error:
        unseen = error.message
    if unseen:
        facts.blind = f"containers, their ports and images are not told: {unseen}"
        facts.missing.append(facts.blind)
    try:
        facts.host = bridge.facts()
    except (BridgeUnavailableError, BridgeError) as error:
        facts.missing.append(f"who listens on the host is not told: {error.message}")
    artifacts = coverage.backups(settings, now)
    seen = places.look(settings, docker).files
    for stack in discovery.stacks:
        progress.step(f"looking at {display(stack.name)}")
        facts.covered[stack.name] = coverage.of_stack(stack, settings.volume, artifacts)
        files = () if compose.find_files(stack.directory) else _files_in_use(stack)
        facts.linted[stack.name] = _linted(stack, files, seen)
    return facts


def _linted(stack: Stack, files: Sequence[Path], seen: HostFiles) -> Linted:
    """Unless a file that would be read, and quoted where it is no compose file, is not the stack's."""
    paths = compose.dependencies(stack.directory, files, seen).paths
    refused = next((path for path in paths if os.path.lexists(path) and seen.refusal(path)), None)
    return Linted(errors=(seen.refusal(refused),)) if refused else compose_lint.lint(stack.directory, files)


def find(discovery: Discovery, facts: Facts, now: datetime) -> list[Finding]:
    """What a person should look at, the worst first."""
    found = [
        *remarks.of_ports(facts.published(discovery)),
        *remarks.of_images(facts.images, now),
        *(one for stack in discovery.stacks for one in remarks.of_stack(stack)),
    ]
    for stack in discovery.stacks:
        for one in facts.covered.get(stack.name, ()):
            if stack.opted_in and one.why_not and one.tree.writable:
                text = f"{display(one.tree.source)} is not backed up: {one.why_not}"
                found.append(Finding(Severity.WARN, "coverage", text, stack.name))
        linted = facts.linted.get(stack.name, Linted())
        found += [Finding(Severity.WARN, "lint", text, stack.name) for text in linted.errors]
        for severity in ("critical", "high"):
            count = sum(remark.severity == severity for remark in linted.remarks)
            if count:
                text = f"{count} {severity} {'remark' if count == 1 else 'remarks'} on its compose files"
                found.append(
                    Finding(Severity.WARN if severity == "critical" else Severity.INFO, "lint", text, stack.name)
                )
    for project in discovery.outside:
        if project.switched_off or project.project == facts.own_project:
            continue
        text = f"the compose project {display(project.project)} runs elsewhere and is not backed up: {project.reason}"
        found.append(Finding(Severity.WARN, "coverage", text))
    return sorted(found, key=lambda one: list(Severity).index(one.severity))


def _shown(document: dict[str, Any]) -> dict[str, Any]:
    """What the history of runs keeps of a report."""
    return {"summary": document["summary"], "findings": document["findings"]}


def _images(docker: Docker, containers: Sequence[Container]) -> tuple[Image, ...]:
    """Those that containers were made from; one that is gone is told by what its containers say."""
    users: dict[str, list[Container]] = {}
    for container in containers:
        users.setdefault(container.image_id, []).append(container)
    return tuple(
        remarks.image(docker.image_info(image_id) or {"id": image_id}, using)
        for image_id, using in sorted(users.items(), key=lambda item: item[1][0].image)
    )


def _files_in_use(stack: Stack) -> list[Path]:
    """Where Compose would find none: the files its containers were made from."""
    named = next((container.config_files for container in stack.containers if container.config_files), ())
    return [stack.directory / name for name in named]
