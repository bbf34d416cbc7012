"""What is told to the outside, as values. The store keeps them between one look at the host and the next.

A `View` is what the daemon saw when it last looked; everything else comes from the history of runs. Times are aware.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from stackward.core.model import Outcome


@dataclass(frozen=True, slots=True)
class ContainerFacts:
    """One container of a stack. `healthy` is None where it has no healthcheck, or has not answered it yet."""

    service: str
    name: str
    running: bool
    healthy: bool | None = None
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class StackFacts:
    """One stack. `state` and `cause` are words of core.verdict; `problems` counts what a person has to mend in it.

    `data_at` is when the data in its newest good backup stood still, `data_bytes` and `data_files` what that holds.
    """

    name: str
    state: str
    cause: str = ""
    has_data: bool = False
    held: bool = False
    problems: int = 0
    data_at: datetime | None = None
    data_bytes: int | None = None
    data_files: int | None = None
    containers: tuple[ContainerFacts, ...] = ()


@dataclass(frozen=True, slots=True)
class SpaceFacts:
    """A place that backups are written to; below `minimum_bytes` none is begun."""

    target: str
    free_bytes: int
    size_bytes: int
    minimum_bytes: int = 0


@dataclass(frozen=True, slots=True)
class BackupFacts:
    """The backups of one kind: how many there are, and the newest good one."""

    kind: str
    count: int
    made_at: datetime | None = None
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class View:
    """What a look at the host and at BACKUP_ROOT showed. `problems` are those that belong to no stack.

    `intervals` are the seconds between two scheduled runs of a job, `open_undo` the undo records whose owner is dead;
    `left_alone` counts the records of each kind that this version does not act on.
    """

    at: datetime
    stacks: tuple[StackFacts, ...] = ()
    problems: int = 0
    spaces: tuple[SpaceFacts, ...] = ()
    backups: tuple[BackupFacts, ...] = ()
    damaged: int = 0
    open_undo: int = 0
    docker_answers: bool = True
    intervals: dict[str, float] = field(default_factory=dict)
    left_alone: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobFacts:
    """The newest ended run of a job, or of one stack's part of it; skipped ones count for nothing."""

    job: str
    stack: str
    ended_at: datetime
    outcome: Outcome
    success_at: datetime | None
    duration_seconds: float
    standstill_seconds: float | None


@dataclass(frozen=True, slots=True)
class Proven:
    """The last drill of a stack that was good, and the backup that it booted."""

    at: datetime
    backup: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything there is to tell. What does not exist yet (replicas, drills, snapshots) is empty, not zero."""

    view: View | None = None
    jobs: tuple[JobFacts, ...] = ()
    totals: dict[tuple[str, Outcome], int] = field(default_factory=dict)
    heartbeat_at: datetime | None = None
    snapshots: int | None = None
    replicas: dict[str, datetime] = field(default_factory=dict)
    drills: dict[str, Proven] = field(default_factory=dict)
