"""rotate-logs: the log files and reports are put aside each day, compressed a day later, and gone after seven.

logrotate does it, by the same file that host-units/install can put on the host; where the host rotates, nothing is done.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stackward.config import Settings
from stackward.core.model import JobResult, Outcome
from stackward.core.progress import Progress
from stackward.tools import filesystem, logrotate
from stackward.tools.host import host_rotates_logs
from stackward.tools.logs import DIRECTORY

# Where the image has it, and which directory of logs it speaks of.
CONFIGURATION = Path("/usr/local/share/stackward/logrotate.conf")
_WRITTEN_FOR = "/var/log/"
_OURS = "logrotate.conf"
_MEMORY = "logrotate.status"


@dataclass(frozen=True, slots=True)
class Plan:
    """`skip` says why nothing is to be done; else `text` is the configuration to rotate by."""

    text: str = ""
    skip: str = ""


def run(
    *, settings: Settings, progress: Progress, dry_run: bool = False, configuration: Path = CONFIGURATION
) -> JobResult:
    """Rotate what is due.

    Raises:
        LogrotateMissingError: it is not installed.
        CommandError: it could not do all of it.
    """
    plan = make_plan(_read(configuration), settings.log_dir, by_host=host_rotates_logs(settings.config_dir))
    if plan.skip:
        return JobResult(Outcome.SKIPPED, (plan.skip,))
    ours = settings.state_dir / _OURS
    filesystem.write_durably(ours, plan.text.encode())
    progress.step("rotating logs")
    before = _logs(settings.log_dir)
    said = logrotate.rotate(ours, settings.state_dir / _MEMORY, dry_run=dry_run)
    after = _logs(settings.log_dir)
    rotated = sorted(name for name in before if after.get(f"{name}.1") not in (None, before.get(f"{name}.1")))
    told = (f"rotated {', '.join(rotated)}",) if rotated else ()
    return JobResult(Outcome.OK, told, details={"rotated": rotated, "files": sorted(after), "said": said})


def make_plan(configuration: str, log_dir: Path, *, by_host: bool) -> Plan:
    if by_host:
        return Plan(skip="the host rotates them itself")
    if not configuration:
        return Plan(skip="there is no configuration for logrotate: this is not the appliance's image")
    return Plan(configuration.replace(_WRITTEN_FOR, f"{str(log_dir).rstrip('/')}/"))


def _logs(directory: Path) -> dict[str, tuple[int, int]]:
    """Every file that may be rotated or was, by its path below `directory`, with what tells it from a later one."""
    return {**_files(directory / DIRECTORY, f"{DIRECTORY}/", ""), **_files(directory, "", "docker-")}


def _files(directory: Path, prefix: str, begins: str) -> dict[str, tuple[int, int]]:
    try:
        entries: Iterable[os.DirEntry[str]] = list(os.scandir(directory))
        return {
            f"{prefix}{entry.name}": ((found := entry.stat(follow_symlinks=False)).st_ino, found.st_ctime_ns)
            for entry in entries
            if entry.name.startswith(begins) and entry.is_file(follow_symlinks=False)
        }
    except OSError:
        return {}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
