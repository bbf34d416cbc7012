"""The one table of what can be set: docs/settings.md is tested against it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from stackward.core.checks import parse_checks
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
)
from stackward.core.week import WEEK

if TYPE_CHECKING:
    from collections.abc import Callable


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
    "STACKWARD_VERSION": "the version of that image, that of the checkout if not set",
    "STACKWARD_MEMORY_LIMIT": "how much memory the container may use, `3g` if not set, `0`: any",
    "STACKWARD_PIDS_LIMIT": "how many processes and threads the container may have, `1000` if not set, `-1`: any",
    "STACKWARD_PUBLISH": "the host's address and port for `/metrics` and `/healthz`, `127.0.0.1:9466` if not set",
}
