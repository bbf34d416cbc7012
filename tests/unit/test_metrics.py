"""What /metrics says of given facts, read back by Prometheus' own parser."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from prometheus_client.parser import text_string_to_metric_families

from stackward import __version__
from stackward.core.model import Outcome
from stackward.core.verdict import Cause, State
from stackward.observe.facts import (
    BackupFacts,
    ContainerFacts,
    Facts,
    JobFacts,
    Proven,
    SpaceFacts,
    StackFacts,
    View,
)
from stackward.observe.metrics import METRICS, exposition, families
from stackward.observe.push import by_job

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
THEN = NOON.timestamp()
EVENING = NOON + timedelta(hours=6)

SHOP = StackFacts(
    "shop",
    State.UNPROTECTED.value,
    Cause.SHRANK.value,
    has_data=True,
    held=True,
    problems=2,
    data_at=NOON,
    data_bytes=7,
    data_files=1,
    containers=(
        ContainerFacts("db", "shop-db-1", running=True, healthy=False, restarts=3),
        ContainerFacts("web", "shop-web-1", running=False),
    ),
)
VIEW = View(
    at=NOON,
    stacks=(SHOP, StackFacts("new", State.UNPROTECTED.value, Cause.NEVER.value, has_data=True), StackFacts("x", "off")),
    problems=1,
    spaces=(SpaceFacts("backup-root", 10, 100, 5),),
    backups=(BackupFacts("config", 2, NOON, 9), BackupFacts("secrets", 0)),
    damaged=1,
    open_undo=1,
    docker_answers=False,
    intervals={"backup-data": 86400.0, "verify": 86400.0},
    left_alone={"undo": 1, "kept": 0, "backup": 2},
)


def job(name, stack, **more):
    values = {"outcome": Outcome.FAILED, "success_at": NOON, "duration_seconds": 60.0, "standstill_seconds": None}
    return JobFacts(name, stack, EVENING, **{**values, **more})


FACTS = Facts(
    drills={"shop": Proven(NOON, "data-2026-11-03")},
    view=VIEW,
    jobs=(job("backup-data", ""), job("backup-data", "shop", standstill_seconds=1.5), job("restore", "shop")),
    totals={("backup-data", Outcome.FAILED): 4},
    heartbeat_at=EVENING,
)
LATER = Facts(snapshots=3, replicas={"nas": NOON})


def read(facts):
    """name → {labels: value}."""
    found = {}
    for family in text_string_to_metric_families(exposition(facts).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
            assert list(sample.labels) == sorted(sample.labels)
    return found


def test_facts_are_written_down():
    found = read(FACTS)
    assert found["stackward_build_info"] == {(__version__,): 1}
    assert found["stackward_heartbeat_timestamp_seconds"] == {(): EVENING.timestamp()}
    assert found["stackward_view_timestamp_seconds"] == {(): THEN}
    assert found["stackward_docker_up"] == {(): 0}
    assert found["stackward_stacks"] == {("protected",): 0, ("unprotected",): 2, ("off",): 1, ("undecided",): 0}
    assert found["stackward_stack_protected"] == {("shrank", "shop"): 0, ("never-backed-up", "new"): 0}
    assert found["stackward_stack_held"] == {("shop",): 1, ("new",): 0}
    assert found["stackward_config_errors"] == {("",): 1, ("shop",): 2, ("new",): 0, ("x",): 0}
    assert found["stackward_backup_damaged"] == found["stackward_undo_open"] == {(): 1}
    assert found["stackward_records_left_alone"] == {("undo",): 1, ("kept",): 0, ("backup",): 2}
    assert found["stackward_backups"] == {("config",): 2, ("secrets",): 0}
    assert found["stackward_backup_size_bytes"] == {("config", ""): 9, ("data", "shop"): 7}
    assert found["stackward_backup_files"] == {("shop",): 1}
    assert found["stackward_backup_timestamp_seconds"] == {("config", ""): THEN, ("data", "shop"): THEN}
    assert found["stackward_target_free_bytes"] == {("backup-root",): 10}
    assert found["stackward_target_size_bytes"] == {("backup-root",): 100}
    assert found["stackward_target_minimum_free_bytes"] == {("backup-root",): 5}
    assert found["stackward_container_running"] == {("shop-db-1", "db", "shop"): 1, ("shop-web-1", "web", "shop"): 0}
    assert found["stackward_container_healthy"] == {("shop-db-1", "db", "shop"): 0}
    assert found["stackward_container_restarts_total"][("shop-db-1", "db", "shop")] == 3
    assert found["stackward_job_runs_total"] == {("backup-data", "failed"): 4}
    assert found["stackward_job_duration_seconds"] == {("backup-data",): 60}
    assert found["stackward_standstill_seconds"] == {("shop",): 1.5}


def test_a_failed_job_ran_later_than_it_succeeded():
    found = read(FACTS)
    assert found["stackward_job_last_success_timestamp_seconds"][("backup-data", "shop")] == THEN
    assert found["stackward_job_last_run_timestamp_seconds"][("backup-data", "shop")] == EVENING.timestamp()


def test_a_stack_that_was_never_backed_up_and_a_job_that_never_ran_have_their_series():
    found = read(FACTS)["stackward_job_last_success_timestamp_seconds"]
    assert found[("backup-data", "new")] == 0
    assert found[("verify", "")] == 0
    assert ("backup-data", "x") not in found


def test_nothing_multiplies_series():
    gone = replace(FACTS, view=replace(VIEW, stacks=VIEW.stacks[1:]))
    text = exposition(gone).decode()
    assert "shop" not in text
    assert ("restore", "shop") not in read(FACTS)["stackward_job_last_run_timestamp_seconds"]


def test_before_the_first_look_there_is_no_stack():
    found = read(replace(FACTS, view=None))
    assert "stackward_stack_protected" not in found
    assert ("backup-data", "") in found["stackward_job_last_run_timestamp_seconds"]


def test_what_does_not_exist_yet_is_absent_and_appears_with_its_first_value():
    later = {family.name for family in METRICS if family.later}
    assert not later & set(read(FACTS))
    assert later == set(read(LATER)) - {"stackward_build_info"}


def test_every_metric_of_the_table_can_appear_and_no_other():
    names = {sample.name for facts in (FACTS, LATER) for metric in families(facts) for sample in metric.samples}
    assert names == {family.name for family in METRICS}


def test_odd_names_are_labels_that_prometheus_reads():
    odd = StackFacts('caf\udce9 "\n\\', State.PROTECTED.value, has_data=True)
    found = read(Facts(view=View(NOON, (odd,))))
    assert list(found["stackward_stack_protected"]) == [("", 'caf\\xe9 "\\n\\')]


def test_names_that_look_alike_once_they_are_printed_make_one_series():
    twins = (StackFacts("\udce9", State.PROTECTED.value), StackFacts("\\xe9", State.PROTECTED.value))
    assert list(read(Facts(view=View(NOON, twins)))["stackward_stack_protected"]) == [("", "\\xe9")]


def test_what_is_pushed_is_grouped_by_job_and_loses_nothing():
    groups = by_job(families(FACTS))
    assert set(groups) == {"stackward", "backup-data", "verify"}
    for name, metrics in groups.items():
        jobs = {sample.labels.get("job") for metric in metrics for sample in metric.samples}
        assert jobs == ({None} if name == "stackward" else {name})
    pushed = sum(len(metric.samples) for metrics in groups.values() for metric in metrics)
    assert pushed == sum(len(metric.samples) for metric in families(FACTS))
