"""The one table of labels: docs/labels.md is tested against it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stackward.core import label_values as values
from stackward.core.units import parse_duration
from stackward.core.values import parse_boolean, parse_keep, parse_list

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PREFIX = "stackward."
_USED = frozenset({"backup", "staging", "drill", "probe"})


@dataclass(frozen=True, slots=True)
class Label:
    """One label. `default` and `value` are how docs show them.

    `safer` picks among values that disagree (without it, the default holds). `spreads`: a service label that may stand
    at the top of `x-stackward`, for every service that does not say otherwise. `planned`: it is read and checked, but
    nothing in this version uses it yet.
    """

    key: str
    scope: Literal["stack", "service"]
    parse: Callable[[str], Any]
    value: str
    default: str
    description: str
    safer: Callable[[Sequence[Any]], Any] | None = None
    spreads: bool = False

    @property
    def planned(self) -> bool:
        return self.key.removeprefix(PREFIX).partition(".")[0] not in _USED


def _stack(
    key: str,
    parse: Callable[[str], Any],
    value: str,
    default: str,
    description: str,
    safer: Callable[[Sequence[Any]], Any] | None = None,
) -> Label:
    return Label(PREFIX + key, "stack", parse, value, default, description, safer)


def _service(
    key: str,
    parse: Callable[[str], Any],
    value: str,
    default: str,
    description: str,
    safer: Callable[[Sequence[Any]], Any] = values.first,
    *,
    spreads: bool = False,
) -> Label:
    return Label(PREFIX + key, "service", parse, value, default, description, safer, spreads)


KNOWN = (
    _stack(
        "backup", parse_boolean, "`true`, `false`", "`STACKWARD_BACKUP_DEFAULT`", "Whether the stack is backed up.", any
    ),
    _stack(
        "backup.trees",
        values.one_of("writable", "data", "all"),
        "`writable`, `data`, `all`",
        "`writable`",
        "Which trees: every local one the stack can write, only its `data` directory, or all it mounts.",
        values.widest_trees,
    ),
    _stack(
        "backup.skip",
        parse_list,
        "paths or volume names",
        "none",
        "Trees that need no backup, said on purpose.",
        values.common_items,
    ),
    _stack(
        "backup.exclude",
        values.parse_patterns,
        "gitignore patterns",
        "none",
        "What is left out within the trees.",
        values.common_patterns,
    ),
    _service(
        "backup.quiesce",
        values.parse_quiesce,
        "`auto`, `none`, `pause`, `stop`",
        "`auto`",
        "How the service stands still for the copy; `auto`: not at all if all its writable trees are on one Btrfs "
        "subvolume, else it is stopped.",
        values.strictest_quiesce,
        spreads=True,
    ),
    _stack(
        "backup.max-standstill",
        values.parse_time_limit,
        "a duration",
        "`10m`",
        "A copy that would stand still longer fails instead.",
    ),
    _service(
        "backup.dump",
        values.parse_dumps,
        "`postgres`, `mariadb`, `sqlite:PATH`",
        "none",
        "A logical dump that is taken beside the trees.",
        values.all_dumps,
    ),
    _service("backup.pre", values.parse_text, "a command", "none", "Runs in the service's container before the copy."),
    _service(
        "backup.post",
        values.parse_text,
        "a command",
        "none",
        "Runs in the service's container after the copy (of a snapshot: after it was taken), also where `pre` or the copy failed.",
    ),
    _service(
        "backup.timeout",
        values.parse_time_limit,
        "a duration",
        "`60s`",
        "How long each of these may take.",
        spreads=True,
    ),
    _service(
        "backup.on-error",
        values.one_of("fail", "continue"),
        "`fail`, `continue`",
        "`fail`",
        "What a command that fails does to the stack's backup.",
        spreads=True,
    ),
    _stack(
        "backup.keep",
        parse_keep,
        "`7d`, or `daily=7,weekly=4,monthly=6,yearly=1`",
        "`BACKUP_RETENTION_DAYS` if set, else `daily=7,weekly=4`",
        "How long backups are kept.",
        values.longest_keep,
    ),
    _stack(
        "replicate",
        values.parse_targets,
        "names of targets, `all`, `none`",
        "`all`",
        "Where the stack's backups are copied to.",
    ),
    _stack("staging", parse_boolean, "`true`, `false`", "`false`", "Whether the stack has a staging instance."),
    _stack("staging.services", values.parse_names, "names of services", "all", "Which services the instance has."),
    _stack(
        "staging.publish",
        values.parse_publish,
        "`18080:web:80`, `127.0.0.1:18080:web:80`",
        "none",
        "Ports of the host that lead to the instance; without an address open where production's are.",
    ),
    _stack("staging.env", values.parse_environment, "`NAME=VALUE`", "none", "Environment that overrides production's."),
    _stack(
        "staging.post", values.parse_commands, "commands, one a line", "none", "Run after the instance has started."
    ),
    _stack(
        "staging.empty",
        values.parse_trees,
        "names of volumes and trees",
        "none",
        "Volumes, and other trees as `stackward stacks` names them, that may start empty in the instance.",
    ),
    _stack(
        "staging.service",
        values.parse_text,
        "a service's name",
        "none",
        "A hand-written service that is the instance, in place of a derived one.",
    ),
    _stack(
        "staging.wait",
        values.parse_time_limit,
        "a duration",
        "`15m`; `30m` in a drill",
        "How long an instance may take to become well.",
        max,
    ),
    _stack(
        "drill",
        values.one_of("weekly", "off"),
        "`weekly`, `off`",
        "`weekly` if backed up and staging is derivable",
        "Whether the stack is restored and started from a backup to prove it.",
    ),
    _service(
        "probe",
        values.parse_text,
        "`:8080/health`, or a command",
        "its healthcheck; built-in ones for PostgreSQL and published HTTP ports",
        "What proves that the service works.",
    ),
    _service(
        "update",
        values.parse_update,
        "`true`, `monitor`, `false`",
        "`false`",
        "Whether the image is updated, or only watched.",
        spreads=True,
    ),
    _service(
        "update.rollback",
        parse_list,
        "`image`, `data` or trees",
        "`image`",
        "What goes back when an update fails.",
        spreads=True,
    ),
    _service(
        "update.gate",
        values.one_of("staging"),
        "`staging`",
        "none",
        "Where an update must work before it reaches production.",
        spreads=True,
    ),
    _service(
        "update.delay",
        parse_duration,
        "a duration",
        "`0`",
        "How old an image must be before it is taken.",
        spreads=True,
    ),
    _service(
        "update.major",
        parse_boolean,
        "`true`, `false`",
        "`false`",
        "Whether a new major version is taken.",
        spreads=True,
    ),
    _stack(
        "tier",
        values.one_of("infra", "app"),
        "`infra`, `app`",
        "`infra` for graylog, fluentbit, monitoring, watchtower; else `app`",
        "When the stack starts: `infra` before `app`.",
    ),
)
