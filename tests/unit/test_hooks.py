"""Commands around a backup, in a real container."""

from contextlib import suppress

import docker.errors
import pytest

from stackward.core.model import Container, Hook, Service, ServicePolicy, Stack
from stackward.steps.backup import hooks
from stackward.steps.undo import Undo
from stackward.tools.docker import Docker
from unit.hosts import DOCKER_HOST


@pytest.fixture
def container(api, image):
    made = api.create_container(image, command=["sleep", "1000"], stop_signal="SIGKILL")["Id"]
    api.start(made)
    yield made
    with suppress(docker.errors.NotFound):
        api.remove_container(made, force=True, v=True)


def test_a_post_runs_also_where_its_own_pre_failed_and_no_other_does(tmp_path, container):
    engine = Docker(DOCKER_HOST)
    services = [
        Service(name, policy=ServicePolicy(pre=Hook(name, pre), post=Hook(name, f"echo {name} >>/tmp/ran")))
        for name, pre in (("a", "true"), ("b", "exit 3"), ("c", "true"))
    ]
    containers = tuple(Container(container, one.name, "shop", one.name, "running") for one in services)
    stack = Stack("shop", tmp_path, "shop", services=tuple(services), containers=containers)

    with (
        pytest.raises(hooks.HookError, match="pre hook of shop/b ended with exit code 3"),
        hooks.around(engine, Undo(tmp_path / "undo", engine), stack),
    ):
        pytest.fail("the data is not to be copied")

    assert engine.exec(container, ["cat", "/tmp/ran"], timeout_seconds=10).output_tail.split() == ["b", "a"]
    assert list((tmp_path / "undo").glob("*.json")) == []
