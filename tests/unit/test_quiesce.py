"""Which containers stand still for a backup, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackward.core.model import Container, Dump, Hook, Quiesce, Service, ServicePolicy, Stack, Tree, TreeKind
from stackward.steps import quiesce
from stackward.tools.docker import DockerUnavailableError

TREE = Tree("shop", "db", TreeKind.BIND, Path("/t"), Path("/t"), writable=True, services=("db",))


def container(service: str, state: str = "running") -> Container:
    return Container(id=service, name=service, project="shop", service=service, state=state)


def stack(*services: Service, states: dict[str, str] | None = None) -> Stack:
    containers = tuple(container(service.name, (states or {}).get(service.name, "running")) for service in services)
    return Stack("shop", Path("/s"), "shop", services=services, trees=(TREE,), containers=containers)


def service(name: str, mode: Quiesce = Quiesce.AUTO, *needs: str) -> Service:
    return Service(name, policy=ServicePolicy(quiesce=mode), depends_on=needs)


def test_one_snapshot_needs_no_standstill() -> None:
    assert quiesce.plan(stack(service("db")), True, [TREE]).empty


def test_without_one_the_services_that_write_are_stopped_and_no_others() -> None:
    plan = quiesce.plan(stack(service("db"), service("web")), False, [TREE])
    assert [c.id for c in plan.stop] == ["db"]
    assert plan.pause == ()


def test_a_label_stands_above_auto() -> None:
    services = (service("db", Quiesce.NONE), service("web", Quiesce.PAUSE))
    plan = quiesce.plan(stack(*services), False, [TREE])
    assert [c.id for c in plan.pause] == ["web"]
    assert plan.stop == ()


def test_dependents_stop_first() -> None:
    services = (service("db", Quiesce.STOP), service("app", Quiesce.STOP, "db"), service("web", Quiesce.STOP, "app"))
    assert [c.id for c in quiesce.plan(stack(*services), False, [TREE]).stop] == ["web", "app", "db"]


def test_a_circle_of_dependencies_is_no_trap() -> None:
    services = (service("a", Quiesce.STOP, "b"), service("b", Quiesce.STOP, "a"))
    assert len(quiesce.plan(stack(*services), False, [TREE]).stop) == 2


def test_what_somebody_paused_stays_paused_and_what_is_stopped_stays_stopped() -> None:
    states = {"db": "paused", "web": "exited"}
    services = (service("db", Quiesce.STOP), service("web", Quiesce.STOP))
    assert quiesce.plan(stack(*services, states=states), False, [TREE]).empty


def test_a_container_that_its_compose_file_no_longer_names_stands_still_if_it_writes() -> None:
    left = Stack("shop", Path("/s"), "shop", trees=(TREE,), containers=(container("db"), container("web")))
    assert [c.id for c in quiesce.plan(left, False, [TREE]).stop] == ["db"]


HOOK = Hook("web", "true")


@pytest.mark.parametrize(
    ("one", "one_snapshot"),
    [
        (service("db"), False),
        (service("web", Quiesce.PAUSE), True),
        (Service("web", policy=ServicePolicy(pre=HOOK)), True),
        (Service("web", policy=ServicePolicy(post=HOOK)), True),
        (Service("web", policy=ServicePolicy(dumps=(Dump("web", "postgres"),))), True),
    ],
)
def test_without_docker_what_might_write_or_must_be_called_is_refused(one: Service, one_snapshot: bool) -> None:
    with pytest.raises(DockerUnavailableError, match=one.name):
        quiesce.require_known(None, stack(one), one_snapshot, [TREE])


def test_without_docker_what_needs_nothing_goes_on() -> None:
    quiesce.require_known(None, stack(service("db"), service("web")), True, [TREE])
    quiesce.require_known(None, stack(service("db", Quiesce.NONE), service("web")), False, [TREE])
