"""What stands in for a container that is removed for a moment: real ones."""

from __future__ import annotations

import uuid

import pytest

from stackward.tools.docker import Docker, DockerError
from unit.hosts import DOCKER_HOST


@pytest.fixture
def web(api, image):
    """A running container of a compose project."""
    name = f"unit{uuid.uuid4().hex[:8]}"
    labels = {"com.docker.compose.project": name, "com.docker.compose.service": "web"}
    made = api.create_container(image, command=["sleep", "100"], name=name, labels=labels, stop_signal="SIGKILL")["Id"]
    api.start(made)
    yield name
    for one in api.containers(all=True, filters={"label": f"com.docker.compose.project={name}"}):
        api.remove_container(one["Id"], v=True, force=True)


def test_nothing_stands_in_for_a_container_that_runs(web):
    docker = Docker(DOCKER_HOST)
    (found,) = docker.containers(web)
    with pytest.raises(DockerError, match=f"{web} runs"):
        docker.replace_by_stand_in(found.id)
    assert [(one.id, one.state) for one in docker.containers(web)] == [(found.id, "running")]
    docker.stop(found.id)
    docker.replace_by_stand_in(found.id)
    assert [one.name for one in docker.containers(web)] == [f"{web}.stackward"]
