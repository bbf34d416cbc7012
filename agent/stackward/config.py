"""Environment and file become one frozen Settings value, once; `variables` says what can be set.

The environment wins over the file, an empty variable counts as not set (compose passes `${NAME:-}` so), and every name may end in
`_FILE` to name a file that holds the value. Values of variables that hold secrets never show up in a message.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from stackward.core.errors import SettingsError
from stackward.core.model import Keep, display
from stackward.core.values import suggest
from stackward.variables import COMPOSE_VARIABLES, VARIABLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stackward.core.checks import Check

SETTINGS_FILE = "stackward.toml"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set. Paths are the same inside the container as on the host."""

    docker_root: Path = Path("/opt/docker")
    backup_root: Path = Path("/backup/docker")
    volume: Path = Path("/srv/containers")  # need not exist, need not be Btrfs
    state_dir: Path = Path("/var/lib/stackward")
    config_dir: Path = Path("/etc/stackward")
    run_dir: Path = Path("/run/stackward")
    log_dir: Path = Path("/var/log")
    docker_volumes: Path = Path("/var/lib/docker/volumes")
    docker_host: str = "unix:///var/run/docker.sock"
    zone: ZoneInfo = ZoneInfo("UTC")  # noqa: RUF009 - immutable
    backup_default: bool = False
    keep: Keep = Keep(daily=7, weekly=4)  # noqa: RUF009 - frozen
    shrink_limit: float = 0.9
    age_recipients: tuple[str, ...] = ()
    config_size_limit: int = 256 << 20  # a directory nobody names that is larger is left out of the config tarball
    minimum_free_bytes: int = 1 << 30  # below it a backup is refused before it begins
    snapshot_keep: Keep = Keep(daily=7, weekly=4)  # noqa: RUF009 - frozen
    snapshot_skip: tuple[str, ...] = ()
    # Meant for tests of network devices (RFC 2544), so routed nowhere; what fakes addresses takes its first half.
    staging_subnets: tuple[IPv4Network, ...] = (IPv4Network("198.19.0.0/16"),)
    truenas_host: str = ""
    truenas_user: str = "docker-backup"
    listen: tuple[str, int] | None = ("127.0.0.1", 9466)  # None: nothing is served
    notify_urls: tuple[str, ...] = ()
    ping_url: str = ""
    pushgateway_url: str = ""
    gelf_url: str = ""
    checks: tuple[Check, ...] | None = None  # None: whatever of the kind is found
    schedule: bool = True  # the daemon runs what is due
    schedules: Mapping[str, str] = field(default_factory=dict)  # name in core.week -> cron expression, "on" or "off"
    jitter: timedelta = timedelta(0)  # every scheduled run begins up to so much later, always as much later
    backup_on_change: timedelta = timedelta(0)  # how long compose files must be left alone after a change; 0: off
    crash_point: str = ""  # tests only: kill the process at this named point (docs/ARCHITECTURE.md)


_BY_NAME = {variable.name: variable for variable in VARIABLES}
_PREFIX = "STACKWARD_"
_FILE_SUFFIX = "_FILE"
# The administrator may have put links there; below them none is followed (tools/beneath).
_LINKED = frozenset({"backup_root", "state_dir", "config_dir"})
# Read before there is a file, so a file cannot set it.
_ENVIRONMENT_ONLY = "STACKWARD_CONFIG_DIR"


def load(environment: Mapping[str, str], file: Path | None) -> Settings:
    """The settings that `environment` and `file` (TOML; need not exist) say, defaults where they say nothing.

    Raises one SettingsError that lists every mistake, each with the variable's name and what would be right.
    """
    errors: list[str] = []
    stated = {**_from_file(file, errors), **_from_environment(environment, errors)}
    fields: dict[str, Any] = {}
    for name, text in stated.items():
        variable = _BY_NAME[name]
        try:
            value = variable.parse(text)
            if variable.key:
                fields.setdefault(variable.field, {})[variable.key] = value
            else:
                fields[variable.field] = value
        except ValueError as error:
            errors.append(f"{name} {error}" + ("" if variable.secret else f", not '{display(text)}'"))
    for name in _LINKED & fields.keys():
        fields[name] = Path(os.path.realpath(fields[name]))
    settings = Settings(**fields)
    errors += _contradictions(settings)
    if errors:
        listed = "\n".join(f"  {line}" for line in errors)
        raise SettingsError(f"the settings are wrong:\n{listed}", hint="docs/settings.md lists what can be set")
    return settings


def from_process() -> Settings:
    """The settings of this process; raises SettingsError as `load` does."""
    directory = os.environ.get(_ENVIRONMENT_ONLY) or str(Settings().config_dir)
    return load(os.environ, Path(directory, SETTINGS_FILE))


def _from_environment(environment: Mapping[str, str], errors: list[str]) -> dict[str, str]:
    ours = {name: text for name, text in environment.items() if text.strip() and _is_ours(name)}
    return _stated(ours, "", errors)


def _is_ours(name: str) -> bool:
    """Names that we read, and those in our name space that nobody knows."""
    if name in COMPOSE_VARIABLES:
        return False
    return name in _BY_NAME or name.removesuffix(_FILE_SUFFIX) in _BY_NAME or name.startswith(_PREFIX)


def _from_file(file: Path | None, errors: list[str]) -> dict[str, str]:
    if file is None:
        return {}
    try:
        document = tomllib.loads(file.read_bytes().decode())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, not TOML
        errors.append(f"{display(file)} cannot be read: {error}")
        return {}
    texts: dict[str, str] = {}
    for name, value in document.items():
        text = _text(value)
        if text is None:
            errors.append(f"{name} in {display(file)} must be a string, a number, a boolean or a list of strings")
        elif name == _ENVIRONMENT_ONLY:
            errors.append(f"{name} in {display(file)} can be set in the environment only")
        else:
            texts[name] = text
    return _stated(texts, f" in {display(file)}", errors)


def _text(value: object) -> str | None:
    """A TOML value as the environment would spell it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "\n".join(value)
    return None


def _stated(texts: Mapping[str, str], where: str, errors: list[str]) -> dict[str, str]:
    """Variable name → value, with `NAME_FILE` replaced by what the file holds."""
    stated: dict[str, str] = {}
    for name, text in texts.items():
        base = name.removesuffix(_FILE_SUFFIX)
        if name in _BY_NAME:
            stated[name] = text
        elif base not in _BY_NAME:
            hint = suggest(base, _BY_NAME, _PREFIX)
            errors.append(f"{name}{where} is not a setting" + (f": {hint}" if hint else ""))
        elif base in texts:
            errors.append(f"{base} and {name}{where} are both set; keep one")
        else:
            try:
                stated[base] = Path(text).read_bytes().decode().rstrip("\r\n")
            except (OSError, ValueError) as error:
                errors.append(f"{name}{where} must name a readable text file: {error}")
    return stated


def _contradictions(settings: Settings) -> Iterator[str]:
    """What no I/O is needed to see."""
    docker, backup = settings.docker_root, settings.backup_root
    places = f"(DOCKER_ROOT is {display(docker)}, BACKUP_ROOT is {display(backup)})"
    if backup.is_relative_to(docker):
        yield f"BACKUP_ROOT must lie outside DOCKER_ROOT, or backups would be backed up {places}"
    elif docker.is_relative_to(backup):
        yield f"DOCKER_ROOT must lie outside BACKUP_ROOT, or stacks would be taken for backups {places}"
