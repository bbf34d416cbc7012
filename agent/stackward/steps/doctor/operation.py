"""Does it run by itself, does something else run beside it, and would anybody be told?"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from stackward.core.artifacts import INDEX, ArtifactKind
from stackward.core.errors import RefusedError
from stackward.core.model import display
from stackward.core.units import format_age
from stackward.steps import catalog, left_alone
from stackward.steps.doctor import Facts, Finding, error, info, ok, warn
from stackward.steps.report import heartbeat
from stackward.tools.docker import DockerError

if TYPE_CHECKING:
    from collections.abc import Iterator

_RECENT = timedelta(days=2)
_OLD_CRON = re.compile(r"^[^#\n]*\b(?:backup|snapshot|staging|watchtower)\S*\.(?:py|sh)\b", re.MULTILINE)
_CRON_FILE = "docker-maintenance"


def look(facts: Facts) -> Iterator[Finding]:
    yield from _daemon(facts)
    yield from _watchtower(facts)
    yield from _old_cron(facts)
    yield from _told(facts)
    yield from _left_alone(facts)


def _daemon(facts: Facts) -> Iterator[Finding]:
    if not facts.settings.schedule:
        text = "the schedule is off: backups are made only when somebody asks"
        yield warn("schedule", text, "set STACKWARD_SCHEDULE=true, or call `stackward run` from a timer of your own")
    beat = heartbeat.last(facts.settings)
    if beat is None:
        yield error("schedule", "the daemon never ran here: nothing happens by itself", "docker compose up -d")
        return
    if facts.now - beat > heartbeat.LATE:
        text = f"the daemon's last sign of life was {format_age(beat, facts.now)}"
        yield error("schedule", text, "docker compose logs stackward, then docker compose restart")
    elif facts.settings.schedule:
        yield ok("schedule", "the daemon is alive")


def _watchtower(facts: Facts) -> Iterator[Finding]:
    if facts.docker is None:
        return
    try:
        containers = facts.docker.containers()
    except DockerError:
        return
    for container in containers:
        if "watchtower" in container.image and container.state == "running":
            yield warn(
                "updates",
                f"Watchtower runs ({display(container.name)}): it replaces containers whenever it likes",
                "keep its schedule away from 02:00 to 04:00, when stacks are backed up",
            )


def _old_cron(facts: Facts) -> Iterator[Finding]:
    advice = (
        f"once this one has backed up, remove /etc/cron.d/{_CRON_FILE} on the host, so that both do not do it twice"
    )
    for path in _cron_files():
        try:
            found = _OLD_CRON.search(path.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
        if found:
            yield warn("cron", f"{display(path)} still runs scripts for backups: {found[0].strip()[:100]}", advice)
            return
    recent = _recent_foreign_backup(facts)
    if recent:
        yield warn("cron", f"another program made {recent} in BACKUP_ROOT: old cron lines seem to be at work", advice)
    elif (script := facts.settings.docker_root / "scripts" / "backup.py").is_file():
        yield info("cron", f"{display(script)} is still there: is a cron line on the host still calling it?", advice)


def _cron_files() -> list[Path]:
    """The host's, where this runs on the host itself; a container has none."""
    directories = [Path("/etc/cron.d"), Path("/var/spool/cron/crontabs")]
    found = [Path("/etc/crontab")]
    for directory in directories:
        try:
            found += sorted(path for path in directory.iterdir() if path.is_file())
        except OSError:
            continue
    return found


def _recent_foreign_backup(facts: Facts) -> str:
    try:
        backups = catalog.catalog(facts.settings, facts.now)
    except RefusedError:
        return ""
    for backup in backups:
        foreign = backup.kind is ArtifactKind.DATA and not (backup.path / INDEX).exists()
        if foreign and timedelta(0) <= facts.now - backup.name.when <= _RECENT:
            return display(backup.name.name)
    return ""


def _left_alone(facts: Facts) -> Iterator[Finding]:
    try:
        backups = catalog.catalog(facts.settings, facts.now)
    except RefusedError:
        backups = []
    for one in left_alone.look(facts.settings, backups):
        advice = "run the version of the appliance that made it: this one keeps it, and does nothing about it"
        yield (error if one.kind is left_alone.Kind.UNDO else warn)("records", one.text, advice)


def _told(facts: Facts) -> Iterator[Finding]:
    if facts.settings.notify_urls:
        yield ok("told", "failures are told to somebody; `stackward notify` sends a message to try it")
    else:
        text = "nobody is told of a failed backup: STACKWARD_NOTIFY_URLS is not set"
        yield warn("told", text, "set it (docs/monitoring.md), or have Prometheus watch /metrics")
    if not facts.settings.ping_url:
        text = "nobody notices when this whole host falls silent: STACKWARD_PING_URL is not set"
        yield info("told", text, "set it to a dead man's switch elsewhere (healthchecks.io, Uptime Kuma, …)")
