from dataclasses import replace
from pathlib import Path

import pytest

from stackward.core.model import Container, Outcome, Stack
from stackward.jobs import health
from unit.hosts import SmallHost

WEB = Container("c1", "shop-web-1", "shop", "web", "running", restart_policy="unless-stopped")


@pytest.fixture
def store(tmp_path):
    return SmallHost(tmp_path).store


def stack(name, *containers):
    return Stack(name, Path("/opt/docker", name), name, containers=containers)


def test_each_stack_has_its_part_and_the_worst_is_the_whole(store):
    stacks = [stack("shop", WEB), stack("wiki", replace(WEB, id="c2", health="unhealthy")), stack("old")]
    result = health.run(store=store, stacks=stacks)
    assert [part.outcome for part in result.stacks] == [Outcome.OK, Outcome.FAILED, Outcome.SKIPPED]
    assert (result.outcome, result.reasons) == (Outcome.FAILED, ("not well: wiki",))


def test_restarts_are_compared_with_the_last_look(store):
    def look(count):
        return health.run(store=store, stacks=[stack("shop", replace(WEB, restart_count=count))]).outcome

    assert [look(count) for count in (3, 3, 4, 9, 9)] == [
        Outcome.OK,
        Outcome.OK,
        Outcome.WARN,
        Outcome.FAILED,
        Outcome.OK,
    ]


def test_a_dry_run_remembers_nothing(store):
    health.run(store=store, stacks=[stack("shop", WEB)], dry_run=True)
    assert health.remembered(store) == {}


@pytest.mark.parametrize("damage", ["{", "[1]", '{"c1": "many"}', "null", '{"c1": null}'])
def test_a_memory_that_cannot_be_read_is_as_none(store, damage):
    store.set_note(health.RESTARTS_NOTE, damage)
    assert health.run(store=store, stacks=[stack("shop", replace(WEB, restart_count=5))]).outcome is Outcome.OK
    assert health.remembered(store) == {"c1": 5}


def test_where_docker_does_not_answer_nothing_is_said_of_stacks_and_nothing_is_forgotten(store):
    health.run(store=store, stacks=[stack("shop", WEB)])
    result = health.run(store=store, stacks=[stack("shop")], docker_error="no Docker Engine answers")
    assert (result.outcome, result.stacks) == (Outcome.FAILED, ())
    assert health.remembered(store) == {"c1": 0}
