"""stackward check: the doctor. Looks, changes nothing, and says what to do about each finding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.text import Text

from stackward.cli.stacks import sizes_of
from stackward.core.errors import ExitCode, SettingsError, StackwardError
from stackward.stacks import places
from stackward.steps.doctor import (
    Facts,
    Finding,
    Severity,
    backups,
    error,
    host,
    machine,
    operation,
    policies,
    schedule,
    staged,
)
from stackward.tools import filesystem

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rich.console import Console

    from stackward.cli.context import Context

_STYLES = {Severity.ERROR: "bold red", Severity.WARN: "yellow", Severity.INFO: "cyan", Severity.OK: "green"}
_LOOKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    machine.look,
    backups.look,
    policies.look,
    staged.look,
    operation.look,
    schedule.look,
    host.look,
)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="only errors and warnings")


def run(arguments: Namespace, context: Context) -> int:
    """0: no errors; 1: there are; 2: the settings are wrong, and nothing else was looked at."""
    findings, code = _findings(context)
    worst = (Severity.ERROR, Severity.WARN)
    shown = [finding for finding in findings if not arguments.quiet or finding.severity in worst]

    def human(console: Console) -> None:
        for finding in sorted(shown, key=lambda one: list(Severity).index(one.severity)):
            console.print(Text.assemble((f"{finding.severity.value:<6}", _STYLES[finding.severity]), finding.text))
            if finding.advice:
                console.print(f"      → {finding.advice}")
        count = {severity: sum(one.severity is severity for one in findings) for severity in Severity}
        console.print(
            f"\n{count[Severity.ERROR]} errors, {count[Severity.WARN]} warnings, {count[Severity.INFO]} hints"
        )

    context.output.show({"findings": [asdict(finding) for finding in shown]}, human)
    return code


def _findings(context: Context) -> tuple[list[Finding], ExitCode]:
    try:
        settings = context.settings
    except SettingsError as wrong:
        return [
            error("settings", wrong.message, wrong.hint or "set them right, then docker compose up -d")
        ], ExitCode.USAGE
    appliance = context.appliance
    findings: list[Finding] = []
    discovery = None
    try:
        discovery = appliance.discovery
    except StackwardError as failure:
        findings.append(error("stacks", failure.message, failure.hint))
    docker = appliance.docker_or_none
    table = filesystem.mounts()
    facts = Facts(
        settings=settings,
        docker=docker,
        discovery=discovery,
        store=appliance.store,
        sizes=sizes_of(appliance),
        mounts=table,
        own=places.own_container(docker, table),
        now=appliance.now(),
    )
    for look in _LOOKS:
        findings += look(facts)
    bad = any(finding.severity is Severity.ERROR for finding in findings)
    return findings, ExitCode.FAILED if bad else ExitCode.OK
