"""The words of Stackward as frozen values.

Paths are `pathlib.Path` made from `os.fsdecode`d names: a name that is not UTF-8 carries surrogate escapes, and
`display` makes any of them printable. Sizes are bytes, times are aware datetimes (UTC unless said), durations seconds.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any


class Outcome(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAILED = "failed"
    SKIPPED = "skipped"

    @staticmethod
    def worst(outcomes: list[Outcome]) -> Outcome:
        """The outcome of a whole whose parts ended so; SKIPPED only when every part was skipped."""
        for outcome in (Outcome.FAILED, Outcome.WARN, Outcome.OK):
            if outcome in outcomes:
                return outcome
        return Outcome.SKIPPED if outcomes else Outcome.OK


class TreeKind(StrEnum):
    DATA = "data"
    BIND = "bind"
    VOLUME = "volume"


class Quiesce(StrEnum):
    AUTO = "auto"
    NONE = "none"
    PAUSE = "pause"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Tree:
    """One directory that holds a stack's data.

    `source` is the path as Compose resolved it (or the volume's mountpoint), `path` the same after `realpath`.
    `mount_name` is unique within the stack and safe as a file name; for the stack's own `data` directory it is "data".
    """

    stack: str
    mount_name: str
    kind: TreeKind
    source: Path
    path: Path
    writable: bool
    services: tuple[str, ...] = ()
    volume: str | None = None
    driver_options: bool = False
    covered: bool = True
    reason: str = ""

    @property
    def artifact_path(self) -> PurePosixPath:
        """Where the tree lies within a data backup."""
        if self.kind is TreeKind.DATA:
            return PurePosixPath(self.stack)
        return PurePosixPath(".mounts", self.stack, self.mount_name)


@dataclass(frozen=True, slots=True)
class Hook:
    """A command that runs inside a service's container (`sh -c`)."""

    service: str
    command: str
    timeout_seconds: float = 60.0
    on_error: str = "fail"  # or "continue"


@dataclass(frozen=True, slots=True)
class Dump:
    """A logical dump to take beside the trees; `path` is set for sqlite only."""

    service: str
    kind: str  # "postgres", "mariadb", "sqlite"
    path: str = ""


@dataclass(frozen=True, slots=True)
class ServicePolicy:
    """Labels that speak of their own service."""

    quiesce: Quiesce = Quiesce.AUTO
    dumps: tuple[Dump, ...] = ()
    pre: Hook | None = None
    post: Hook | None = None
    probe: str = ""


@dataclass(frozen=True, slots=True)
class Keep:
    """How long backups are kept: `days` (the seed's rule), or a grid of the newest one per period."""

    days: int | None = None
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    hourly: int = 0


@dataclass(frozen=True, slots=True)
class Publish:
    """A port of the host that leads to a port of a service; `address` is "" where nobody said which of the host's."""

    port: int
    service: str
    target: int
    address: str = ""


@dataclass(frozen=True, slots=True)
class Staging:
    """What the labels say of a stack's staging instance.

    `services` is empty for all of them, `service` is a hand-written one that takes the place of a derived instance.
    `wait_seconds` is how long an instance may take to become well; None where nobody said.
    """

    services: tuple[str, ...] = ()
    publish: tuple[Publish, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    post: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    service: str = ""
    wait_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """Labels that speak of the stack. `backup` is None where nobody decided; `staged` has the details of `staging`."""

    backup: bool | None = None
    trees: str = "writable"  # "writable", "data", "all"
    skip: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    max_standstill_seconds: float = 600.0
    keep: Keep | None = None
    replicate: tuple[str, ...] = ("all",)
    staging: bool = False
    staged: Staging = Staging()
    drill: str = ""  # "weekly", "off", or "" where nobody decided
    tier: str = "app"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a stack's configuration that a person has to mend."""

    stack: str
    message: str
    hint: str = ""
    service: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Service:
    """A service of the resolved compose file."""

    name: str
    image: str = ""
    policy: ServicePolicy = field(default_factory=ServicePolicy)
    depends_on: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mount:
    """What a container has mounted: `source` is the path on the host (empty for tmpfs), `name` a volume's name."""

    kind: str  # Docker's word: bind, volume, tmpfs
    name: str
    source: str
    target: str
    writable: bool


@dataclass(frozen=True, slots=True, order=True)
class PublishedPort:
    """A port of the host that leads into a container; the address "0.0.0.0" or "::" means all of the host's."""

    address: str
    port: int
    container_port: int
    protocol: str  # tcp, udp, sctp


@dataclass(frozen=True, slots=True)
class Container:
    """A container as Docker sees it. `state` is Docker's word: running, paused, exited, restarting, created, dead.

    `backup` is what its own label stackward.backup says, as it is written: for projects whose compose file is not seen.
    `exit_code` and `out_of_memory` speak of how it last ended, `error` of why it could not be started.
    """

    id: str
    name: str
    project: str
    service: str
    state: str
    health: str = ""  # healthy, unhealthy, starting, or "" without a healthcheck
    restart_count: int = 0
    image_id: str = ""
    image: str = ""
    working_dir: str = ""
    config_files: tuple[str, ...] = ()
    one_off: bool = False
    mounts: tuple[Mount, ...] = ()
    exit_code: int = 0
    error: str = ""
    out_of_memory: bool = False
    restart_policy: str = ""  # Docker's word: no, always, unless-stopped, on-failure
    ports: tuple[PublishedPort, ...] = ()
    host_network: bool = False
    backup: str = ""

    @property
    def runs(self) -> bool:
        """Whether it may use what is mounted: also while it is paused, or between two attempts to start."""
        return self.state in ("running", "paused", "restarting")


@dataclass(frozen=True, slots=True)
class Stack:
    """A directory directly under DOCKER_ROOT with a compose file.

    `resolved` is False when Compose could not read it; then `problems` says why, and trees are what could be told.
    `opted_in` is the decision after defaults and after labels that vanished; `opted_reason` says where it comes from.
    """

    name: str
    directory: Path
    project: str
    services: tuple[Service, ...] = ()
    trees: tuple[Tree, ...] = ()
    policy: Policy = field(default_factory=Policy)
    opted_in: bool = False
    opted_reason: str = ""
    problems: tuple[Problem, ...] = ()
    containers: tuple[Container, ...] = ()
    resolved: bool = True
    secret_files: tuple[Path, ...] = ()  # env_file, secrets: file, private keys; real paths
    unseen_secrets: tuple[Path, ...] = ()  # of those that it names, what is not the host's here, or not the stack's
    compose_sha256: str = ""
    external_networks: tuple[str, ...] = ()
    raw: dict[str, Any] = field(default_factory=dict)  # the resolved compose model; empty when not resolved

    @property
    def covered_trees(self) -> tuple[Tree, ...]:
        return tuple(tree for tree in self.trees if tree.covered)

    @property
    def running(self) -> tuple[Container, ...]:
        return tuple(c for c in self.containers if c.runs and not c.one_off)


@dataclass(frozen=True, slots=True)
class Counts:
    """What a run moved or looked at. All zero where it does not apply."""

    files: int = 0
    files_changed: int = 0
    files_deleted: int = 0
    bytes: int = 0
    bytes_changed: int = 0


@dataclass(frozen=True, slots=True)
class StackResult:
    """One stack's part of a run (or, with stack "", the part that belongs to none)."""

    stack: str
    outcome: Outcome
    reasons: tuple[str, ...] = ()
    counts: Counts = Counts()
    standstill_seconds: float | None = None
    artifact: str = ""


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a job hands back to the runner. `exit_code` is non-zero only where it says more than the outcome (3, 4)."""

    outcome: Outcome
    reasons: tuple[str, ...] = ()
    stacks: tuple[StackResult, ...] = ()
    counts: Counts = Counts()
    artifacts: tuple[str, ...] = ()
    exit_code: int = 0
    details: dict[str, Any] = field(default_factory=dict)  # JSON-able; what `--json` prints beside the rest


def display(name: str | bytes | os.PathLike[str]) -> str:
    """A name made safe to print: not UTF-8 and control characters come out as backslash escapes."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def undisplayed(word: str) -> str:
    r"""The name that was displayed as `word`, where it had no backslash of its own: `\n` is a line's end again."""
    return re.sub(
        r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|[nrt])",
        lambda found: found[0].encode("ascii").decode("unicode_escape"),
        typed(word),
    )


def typed(word: str) -> str:
    r"""A name as somebody types it who saw it displayed: `\xe9`, a byte that is not UTF-8, is that byte."""
    raw = re.sub(r"\\x([89a-f][0-9a-f])", lambda found: chr(0xDC00 + int(found[1], 16)), word)
    return os.fsdecode(os.fsencode(raw))
