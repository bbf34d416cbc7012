from dataclasses import replace
from pathlib import Path

import pytest

from stackward.core.condition import of_container, of_stack
from stackward.core.model import Container, Outcome, Stack, StackResult

RUNNING = Container("c1", "shop-web-1", "shop", "web", "running", restart_policy="unless-stopped")
ENDED = replace(RUNNING, state="exited")


def stack(*containers, services=None):
    raw = {"services": {name: {} for name in ("web",)} if services is None else services}
    return Stack("shop", Path("/opt/docker/shop"), "shop", containers=containers, raw=raw)


@pytest.mark.parametrize(
    ("changes", "before", "outcome", "words"),
    [
        ({}, None, Outcome.OK, ""),
        ({"health": "healthy"}, None, Outcome.OK, ""),
        ({"health": "starting"}, None, Outcome.OK, ""),
        ({"health": "unhealthy"}, None, Outcome.FAILED, "is unhealthy"),
        ({"state": "restarting", "restart_count": 7, "exit_code": 3}, None, Outcome.FAILED, "7 times so far, exit code 3"),
        ({"restart_count": 9}, None, Outcome.OK, ""),
        ({"restart_count": 9}, 9, Outcome.OK, ""),
        ({"restart_count": 9}, 8, Outcome.WARN, "died and was started again"),
        ({"restart_count": 9}, 7, Outcome.FAILED, "restarts in a loop (9 times so far)"),
        ({"restart_count": 0}, 7, Outcome.OK, ""),  # started by hand: Docker counts anew
        ({"state": "paused"}, None, Outcome.WARN, "is paused"),
        ({"state": "dead"}, None, Outcome.FAILED, "is dead"),
        ({"state": "created"}, None, Outcome.SKIPPED, "is stopped"),
        ({"state": "created", "error": "no such device"}, None, Outcome.FAILED, "no such device"),
    ],
)  # fmt: skip
def test_a_container_is_judged_by_its_state_and_by_what_was_seen_before(changes, before, outcome, words):
    found = of_container(replace(RUNNING, **changes), before)
    assert found.outcome is outcome
    assert words in found.text


@pytest.mark.parametrize(
    ("policy", "exit_code", "outcome"),
    [
        ("unless-stopped", 1, Outcome.SKIPPED),  # Docker would have started it again: somebody stopped it
        ("always", 0, Outcome.SKIPPED),
        ("no", 0, Outcome.OK),  # it did what it was to do
        ("no", 1, Outcome.FAILED),
        ("no", 143, Outcome.SKIPPED),
        ("no", 137, Outcome.SKIPPED),
        ("on-failure", 2, Outcome.FAILED),
        ("on-failure", 0, Outcome.OK),
        ("", 1, Outcome.FAILED),
    ],
)
def test_of_one_that_ended_its_policy_and_exit_code_tell_whether_it_was_stopped(policy, exit_code, outcome):
    assert of_container(replace(ENDED, restart_policy=policy, exit_code=exit_code)).outcome is outcome


def test_out_of_memory_is_no_stop():
    assert of_container(replace(ENDED, exit_code=137, out_of_memory=True)).outcome is Outcome.FAILED


def test_a_stack_that_somebody_stopped_is_no_failure():
    assert of_stack(stack(ENDED), {}) == StackResult("shop", Outcome.SKIPPED, ("it is stopped",))


def test_a_stack_that_was_never_started_is_no_failure():
    assert of_stack(stack(), {}).outcome is Outcome.SKIPPED


def test_what_a_backup_stopped_counts_as_running():
    db = replace(ENDED, id="c2", name="shop-db-1", service="db", restart_policy="no", exit_code=1)
    services = {"web": {}, "db": {}}
    assert of_stack(stack(RUNNING, db, services=services), {}).outcome is Outcome.FAILED
    assert of_stack(stack(RUNNING, db, services=services), {}, frozenset({"c2"})) == StackResult("shop", Outcome.OK)


def test_the_worst_container_makes_the_stack_and_each_bad_one_is_named():
    db = replace(RUNNING, id="c2", name="shop-db-1", service="db", health="unhealthy")
    found = of_stack(stack(replace(RUNNING, state="paused"), db), {})
    assert found == StackResult("shop", Outcome.FAILED, ("shop-web-1 is paused", "shop-db-1 is unhealthy"))


def test_a_service_that_was_stopped_alone_is_a_warning():
    found = of_stack(stack(RUNNING, replace(ENDED, id="c2", name="shop-db-1", service="db")), {})
    assert found.outcome is Outcome.WARN
    assert found.reasons == ("shop-db-1 is stopped, while others of the stack run",)


def test_a_service_without_a_container_is_a_warning_unless_it_is_not_meant_to_run():
    services = {
        "web": {},
        "db": {},
        "debug": {"profiles": ["debug"]},
        "idle": {"deploy": {"replicas": 0}},
        "none": {"scale": 0},
    }
    found = of_stack(stack(RUNNING, services=services), {})
    assert found == StackResult("shop", Outcome.WARN, ("db has no container",))


def test_what_compose_ran_once_is_not_judged():
    once = replace(ENDED, id="c2", one_off=True, exit_code=1, restart_policy="no")
    assert of_stack(stack(RUNNING, once), {}).outcome is Outcome.OK


def test_growth_is_told_per_container():
    found = of_stack(stack(replace(RUNNING, restart_count=5)), {"c1": 1})
    assert found.outcome is Outcome.FAILED
