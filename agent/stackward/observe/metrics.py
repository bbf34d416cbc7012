"""Prometheus metrics: `Facts` written down, nothing computed.

`METRICS` is the one table of what there is; docs/monitoring.md is tested against it. Labels are names of stacks,
containers and jobs that exist now, or words of a fixed set: what is gone from the host is gone from the metrics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from stackward import __version__
from stackward.core.model import display
from stackward.core.verdict import State
from stackward.observe.facts import Facts, StackFacts, View

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_HEARTBEAT = "stackward_heartbeat_timestamp_seconds"
# Jobs of which each stack has series of its own; elsewhere a stack's part says nothing that somebody waits for.
_PER_STACK = ("backup-data", "verify")
_WANTED = (State.PROTECTED, State.UNPROTECTED)
_STATES = tuple(state.value for state in State)
BACKUP_DATA = "backup-data"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. `later` says that nothing feeds it yet: it appears with its first value."""

    name: str
    labels: tuple[str, ...]
    help: str
    counter: bool = False
    later: bool = False


METRICS = (
    Family("stackward_build_info", ("version",), "Always 1; the version of the appliance."),
    Family(_HEARTBEAT, (), "When the daemon last gave a sign of life (every 15 seconds)."),
    Family("stackward_view_timestamp_seconds", (), "When the host and BACKUP_ROOT were last looked at."),
    Family("stackward_docker_up", (), "1 if Docker answered then."),
    Family("stackward_stacks", ("state",), "Stacks that are protected, unprotected, off, or undecided."),
    Family(
        "stackward_stack_protected",
        ("stack", "reason"),
        "1 if the stack's backups are whole and fresh, else 0 with the weightiest reason. Only stacks that opted in.",
    ),
    Family("stackward_stack_held", ("stack",), "1 while older backups are kept since a tree shrank or vanished."),
    Family(
        "stackward_config_errors",
        ("stack",),
        "Problems that a person has to mend, per stack; without a stack, those of none.",
    ),
    Family(
        "stackward_job_last_success_timestamp_seconds",
        ("job", "stack"),
        "When the job last ended ok or with a warning; 0 if it never did. Without a stack, the job as a whole.",
    ),
    Family(
        "stackward_job_last_run_timestamp_seconds",
        ("job", "stack"),
        "When the job last ended, however it did: later than its last success if it failed.",
    ),
    Family("stackward_job_interval_seconds", ("job",), "The longest pause that the schedule has between two runs."),
    Family("stackward_job_runs_total", ("job", "outcome"), "Runs that ended, by outcome.", counter=True),
    Family("stackward_job_duration_seconds", ("job",), "How long the job's last run took."),
    Family("stackward_standstill_seconds", ("stack",), "How long the stack stood still for its last data backup."),
    Family("stackward_backups", ("kind",), "Backups in BACKUP_ROOT: config, secrets, data."),
    Family("stackward_backup_damaged", (), "Backups whose last verify found damage."),
    Family(
        "stackward_backup_size_bytes", ("kind", "stack"), "Size of the newest good backup; of data, also per stack."
    ),
    Family("stackward_backup_files", ("stack",), "Files in the stack's newest good data backup."),
    Family(
        "stackward_backup_timestamp_seconds",
        ("kind", "stack"),
        "When the newest good backup was made; of data, per stack, when its data stood still.",
    ),
    Family("stackward_target_free_bytes", ("target",), "Free space where backups are written."),
    Family("stackward_target_size_bytes", ("target",), "Size of the file system that backups are written to."),
    Family("stackward_target_minimum_free_bytes", ("target",), "Below this much free space backups are refused."),
    Family(
        "stackward_undo_open",
        (),
        "What runs that ended in the middle left stopped or moved, and what could not be put back yet.",
    ),
    Family(
        "stackward_records_left_alone",
        ("kind",),
        "Records of a newer version, or unreadable ones, that are kept and not acted on: undo, kept, backup.",
    ),
    Family("stackward_container_running", ("stack", "service", "container"), "1 if the container runs."),
    Family(
        "stackward_container_healthy", ("stack", "service", "container"), "What its healthcheck says, where it has one."
    ),
    Family(
        "stackward_container_restarts_total",
        ("stack", "service", "container"),
        "How often Docker's restart policy started it again.",
        counter=True,
    ),
    Family("stackward_snapshots", (), "Snapshots on the volume.", later=True),
    Family(
        "stackward_replica_last_success_timestamp_seconds",
        ("target",),
        "When a target was last brought up to date.",
        later=True,
    ),
    Family(
        "stackward_drill_last_success_timestamp_seconds",
        ("stack",),
        "When the stack was last restored from a backup, booted and probed.",
    ),
    Family("stackward_drill_info", ("stack", "backup"), "Always 1: the backup that was proven so."),
)


def registry(found: Sequence[Metric]) -> CollectorRegistry:
    """What prometheus_client writes down or pushes."""
    made = CollectorRegistry(auto_describe=False)
    made.register(_Given(found))
    return made


def exposition(facts: Facts) -> bytes:
    """All metrics in Prometheus' text format."""
    return exposition_of(families(facts))


def heartbeat_exposition(at: datetime | None) -> bytes:
    """The one metric that changes while nothing happens, by itself."""
    return exposition_of(_Samples({} if at is None else {_HEARTBEAT: {(): at.timestamp()}}).families())


def exposition_of(found: Sequence[Metric]) -> bytes:
    return generate_latest(registry(found))


class _Given(Collector):
    def __init__(self, found: Sequence[Metric]) -> None:
        self._found = found

    def collect(self) -> Iterator[Metric]:
        yield from self._found


def families(facts: Facts) -> list[Metric]:
    """The metrics that have a value, in the order of the table."""
    samples = _Samples()
    samples.add("stackward_build_info", 1, __version__)
    samples.at(_HEARTBEAT, facts.heartbeat_at)
    if facts.view is not None:
        _add_view(samples, facts.view)
    _add_jobs(samples, facts)
    if facts.snapshots is not None:
        samples.add("stackward_snapshots", facts.snapshots)
    for target, at in facts.replicas.items():
        samples.at("stackward_replica_last_success_timestamp_seconds", at, target)
    known = {stack.name for stack in facts.view.stacks} if facts.view is not None else set()
    for stack, proven in facts.drills.items():
        if stack in known:
            samples.at("stackward_drill_last_success_timestamp_seconds", proven.at, display(stack))
            samples.add("stackward_drill_info", 1, display(stack), proven.backup)
    return samples.families()


@dataclass(slots=True)
class _Samples:
    """Values by metric and labels: a pair of names that look alike once they are printable counts once."""

    values: dict[str, dict[tuple[str, ...], float]] = field(default_factory=dict)

    def add(self, name: str, value: float, *labels: str) -> None:
        self.values.setdefault(name, {})[labels] = value

    def at(self, name: str, when: datetime | None, *labels: str) -> None:
        if when is not None:
            self.add(name, when.timestamp(), *labels)

    def families(self) -> list[Metric]:
        return [_family(one, self.values[one.name]) for one in METRICS if one.name in self.values]


def _family(one: Family, values: dict[tuple[str, ...], float]) -> Metric:
    made: CounterMetricFamily | GaugeMetricFamily
    if one.counter:
        made = CounterMetricFamily(one.name, one.help, labels=one.labels)
    else:
        made = GaugeMetricFamily(one.name, one.help, labels=one.labels)
    for labels, value in values.items():
        made.add_metric(labels, value)
    return made


def _add_view(samples: _Samples, view: View) -> None:
    samples.at("stackward_view_timestamp_seconds", view.at)
    samples.add("stackward_docker_up", view.docker_answers)
    for state in _STATES:
        samples.add("stackward_stacks", sum(stack.state == state for stack in view.stacks), state)
    samples.add("stackward_config_errors", view.problems, "")
    samples.add("stackward_backup_damaged", view.damaged)
    samples.add("stackward_undo_open", view.open_undo)
    for kind, count in view.left_alone.items():
        samples.add("stackward_records_left_alone", count, kind)
    for space in view.spaces:
        samples.add("stackward_target_free_bytes", space.free_bytes, space.target)
        samples.add("stackward_target_size_bytes", space.size_bytes, space.target)
        samples.add("stackward_target_minimum_free_bytes", space.minimum_bytes, space.target)
    for backup in view.backups:
        samples.add("stackward_backups", backup.count, backup.kind)
        samples.at("stackward_backup_timestamp_seconds", backup.made_at, backup.kind, "")
        if backup.size_bytes is not None:
            samples.add("stackward_backup_size_bytes", backup.size_bytes, backup.kind, "")
    for job, seconds in view.intervals.items():
        samples.add("stackward_job_interval_seconds", seconds, job)
    for stack in view.stacks:
        _add_stack(samples, stack)


def _add_stack(samples: _Samples, stack: StackFacts) -> None:
    name = display(stack.name)
    samples.add("stackward_config_errors", stack.problems, name)
    for container in stack.containers:
        labels = (name, display(container.service), display(container.name))
        samples.add("stackward_container_running", container.running, *labels)
        samples.add("stackward_container_restarts_total", container.restarts, *labels)
        if container.healthy is not None:
            samples.add("stackward_container_healthy", container.healthy, *labels)
    if stack.state not in _WANTED:
        return
    samples.add("stackward_stack_protected", stack.state == State.PROTECTED, name, stack.cause)
    samples.add("stackward_stack_held", stack.held, name)
    samples.at("stackward_backup_timestamp_seconds", stack.data_at, "data", name)
    if stack.data_bytes is not None:
        samples.add("stackward_backup_size_bytes", stack.data_bytes, "data", name)
    if stack.data_files is not None:
        samples.add("stackward_backup_files", stack.data_files, name)
    if stack.has_data:
        samples.add("stackward_job_last_success_timestamp_seconds", 0, BACKUP_DATA, name)


def _add_jobs(samples: _Samples, facts: Facts) -> None:
    """Jobs that are scheduled have their series before they first run; stacks that are gone have none any more."""
    view = facts.view
    wanted = {stack.name for stack in view.stacks if stack.state in _WANTED} if view else set()
    for job in view.intervals if view else ():
        samples.add("stackward_job_last_success_timestamp_seconds", 0, job, "")
    for one in facts.jobs:
        if one.stack and (one.stack not in wanted or one.job not in _PER_STACK):
            continue
        name = display(one.stack)
        samples.at("stackward_job_last_run_timestamp_seconds", one.ended_at, one.job, name)
        succeeded = one.success_at.timestamp() if one.success_at else 0
        samples.add("stackward_job_last_success_timestamp_seconds", succeeded, one.job, name)
        if not one.stack:
            samples.add("stackward_job_duration_seconds", one.duration_seconds, one.job)
        elif one.job == BACKUP_DATA and one.standstill_seconds is not None:
            samples.add("stackward_standstill_seconds", one.standstill_seconds, name)
    for (job, outcome), count in facts.totals.items():
        samples.add("stackward_job_runs_total", count, job, outcome.value)
