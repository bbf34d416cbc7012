"""Environment and file become one frozen Settings value, once.

`VARIABLES` is the one table of what can be set; docs/settings.md is tested against it. The environment wins over the
file, an empty variable counts as not set (compose passes `${NAME:-}` so), and every name may end in `_FILE` to name a
file that holds the value. Values of variables that hold secrets never show up in a message.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from stackward.core.checks import Check, parse_checks
from stackward.core.errors import SettingsError
from stackward.core.model import Keep, display
from stackward.core.schedule import parse_schedule
from stackward.core.units import parse_size
from stackward.core.values import (
    parse_boolean,
    parse_delay,
    parse_docker_host,
    parse_gelf_url,
    parse_host,
    parse_http_url,
    parse_keep,
    parse_list,
    parse_listen,
    parse_path,
    parse_recipients,
    parse_retention_days,
    parse_share,
    parse_subnets,
    parse_urls,
    suggest,
)
from stackward.core.week import WEEK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

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


def _zone(text: str) -> ZoneInfo:
    try:
        return ZoneInfo(text.strip().removeprefix(":"))
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("must be the name of a time zone such as Europe/Berlin or UTC") from error


class Variable(NamedTuple):
    """One thing that can be set.

    `default` is how docs show it, `secret` keeps its value out of messages, `planned` is read and checked, but nothing
    in this version uses it yet. Where several variables make one field, `key` is this one's place in it.
    """

    name: str
    field: str
    parse: Callable[[str], Any]
    default: str
    description: str
    secret: bool = False
    planned: bool = False
    key: str = ""


VARIABLES = (
    Variable(
        "DOCKER_ROOT", "docker_root", parse_path, "/opt/docker", "the directory whose subdirectories are the stacks"
    ),
    Variable("BACKUP_ROOT", "backup_root", parse_path, "/backup/docker", "where backups are written"),
    Variable(
        "BACKUP_RETENTION_DAYS",
        "keep",
        parse_retention_days,
        "unset: daily=7,weekly=4",
        "how many days backups are kept where a stack's labels do not say; unset, a grid is kept",
    ),
    Variable("TZ", "zone", _zone, "UTC", "the time zone of the schedule and of the stamps in backup names"),
    Variable("STACKWARD_VOLUME", "volume", parse_path, "/srv/containers", "the Btrfs volume, if there is one"),
    Variable(
        "STACKWARD_BACKUP_DEFAULT",
        "backup_default",
        parse_boolean,
        "false",
        "whether a stack that says nothing about `stackward.backup` is backed up",
    ),
    Variable(
        "STACKWARD_AGE_RECIPIENTS",
        "age_recipients",
        parse_recipients,
        "none",
        "age recipients, separated by commas, that the secrets capsule is encrypted to; without any there is none",
        secret=True,  # somebody will set the secret key here by mistake
    ),
    Variable(
        "STACKWARD_SHRINK_LIMIT",
        "shrink_limit",
        parse_share,
        "90%",
        "a tree that lost more than this share of its files since the last backup fails its stack",
    ),
    Variable(
        "STACKWARD_CONFIG_SIZE_LIMIT",
        "config_size_limit",
        parse_size,
        "256MiB",
        "a larger directory that nothing names is left out of the config tarball, with a warning",
    ),
    Variable(
        "STACKWARD_MINIMUM_FREE",
        "minimum_free_bytes",
        parse_size,
        "1GiB",
        "a backup is refused before it begins when `BACKUP_ROOT` has less free space",
    ),
    Variable(
        "STACKWARD_SNAPSHOT_KEEP",
        "snapshot_keep",
        parse_keep,
        "daily=7,weekly=4",
        "which snapshots of the volume are kept; those with a label stay until they are deleted",
    ),
    Variable(
        "STACKWARD_SNAPSHOT_SKIP",
        "snapshot_skip",
        parse_list,
        "none",
        "nested subvolumes that snapshots and `.nightly` leave out: gitignore patterns of paths on the volume",
    ),
    Variable(
        "STACKWARD_STAGING_SUBNETS",
        "staging_subnets",
        parse_subnets,
        "198.19.0.0/16",
        "where the networks of staging instances and drills have their subnets, `docker`: where Docker has all others'",
    ),
    Variable(
        "STACKWARD_SCHEDULE", "schedule", parse_boolean, "true", "whether anything happens by itself: the week below"
    ),
    *(Variable(row.variable, "schedules", parse_schedule, row.default, row.description, key=row.name) for row in WEEK),
    Variable(
        "STACKWARD_JITTER",
        "jitter",
        parse_delay,
        "off",
        "each job begins later by up to this much (`10m`), always as much on one host, so that many hosts that share a"
        " disk do not begin together",
    ),
    Variable(
        "STACKWARD_BACKUP_ON_CHANGE",
        "backup_on_change",
        parse_delay,
        "off",
        "back up the configuration when it has changed and was then left alone for this long (`5m`)",
    ),
    Variable(
        "STACKWARD_LISTEN",
        "listen",
        parse_listen,
        "127.0.0.1:9466",
        "where `/metrics` and `/healthz` are served, or `off`; `compose.yaml` makes it `0.0.0.0:9466` within the"
        " container, of which the host publishes what `STACKWARD_PUBLISH` says",
    ),
    Variable(
        "STACKWARD_NOTIFY_URLS",
        "notify_urls",
        parse_urls,
        "none",
        "Apprise URLs, separated by blanks or commas, that are told of failures, and of their end",
        secret=True,
    ),
    Variable(
        "STACKWARD_PING_URL",
        "ping_url",
        parse_http_url,
        "none",
        "a dead man's switch: a URL that is fetched after each good nightly chain, and with `/fail` after a failed one",
        secret=True,
    ),
    Variable(
        "STACKWARD_PUSHGATEWAY_URL",
        "pushgateway_url",
        parse_http_url,
        "none",
        "a Prometheus Pushgateway that gets all metrics every two minutes, after each chain that is scheduled, and with"
        " `--push-metrics`",
        secret=True,
    ),
    Variable(
        "STACKWARD_GELF_URL",
        "gelf_url",
        parse_gelf_url,
        "none",
        "`udp://HOST:PORT` or `tcp://HOST:PORT` of a GELF input (Graylog) that gets the outcome of each scheduled chain,"
        " and with `--send-log`",
    ),
    Variable(
        "STACKWARD_CHECKS",
        "checks",
        parse_checks,
        "auto",
        "what `observability` asks whether it is up: `NAME=http://…` or `NAME=container:NAME`, separated by commas;"
        " `auto`: the containers of Graylog, Prometheus, Grafana and Fluent Bit that stacks have; or `off`",
        secret=True,
    ),
    Variable(
        "TRUENAS_HOST", "truenas_host", parse_host, "none", "the NAS that backups are replicated to", planned=True
    ),
    Variable("TRUENAS_USER", "truenas_user", parse_host, "docker-backup", "the user on that NAS", planned=True),
    Variable("STACKWARD_STATE_DIR", "state_dir", parse_path, "/var/lib/stackward", "history, locks, undo records"),
    Variable(
        "STACKWARD_CONFIG_DIR", "config_dir", parse_path, "/etc/stackward", "`stackward.toml`, keys; environment only"
    ),
    Variable("STACKWARD_RUN_DIR", "run_dir", parse_path, "/run/stackward", "the socket of the host bridge"),
    Variable("STACKWARD_LOG_DIR", "log_dir", parse_path, "/var/log", "where log files and reports are written"),
    Variable(
        "STACKWARD_DOCKER_HOST",
        "docker_host",
        parse_docker_host,
        "unix:///var/run/docker.sock",
        "how Docker is reached",
    ),
    Variable(
        "STACKWARD_DOCKER_VOLUMES",
        "docker_volumes",
        parse_path,
        "/var/lib/docker/volumes",
        "where Docker keeps named volumes",
    ),
    Variable(
        "STACKWARD_CRASH_POINT",
        "crash_point",
        str.strip,
        "none",
        "for the project's own tests: the named point at which the process kills itself",
    ),
)

# Read by compose.yaml and the image's build, never by the program: not an error when they reach it.
COMPOSE_VARIABLES = {
    "STACKWARD_IMAGE": "the image that `compose.yaml` runs",
    "STACKWARD_VERSION": "the version of that image",
    "STACKWARD_PUBLISH": "the host's address and port for `/metrics` and `/healthz`, `127.0.0.1:9466` if not set",
}

_BY_NAME = {variable.name: variable for variable in VARIABLES}
_PREFIX = "STACKWARD_"
_FILE_SUFFIX = "_FILE"
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
