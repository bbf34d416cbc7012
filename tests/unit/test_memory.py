"""What a thread that asks often remembers of the stacks; Docker is a real one where there is one."""

import uuid
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest

from stackward.stacks.memory import CHANGED_NOTE, Memory
from unit.hosts import DOCKER_HOST, NOW, SmallHost

COMPOSE = "services: {web: {image: nginx}}\n"


@pytest.fixture
def host(tmp_path):
    small = SmallHost(tmp_path, docker_host=DOCKER_HOST)
    small.stack("shop", COMPOSE)
    return small


@pytest.fixture
def memory(host, needs_compose):
    return Memory(host.settings, patience_seconds=0)


def names(found):
    return [stack.name for stack in found.stacks]


def test_directories_are_looked_at_again_when_the_watcher_saw_a_change_or_after_a_while(host, memory, api):
    assert names(memory.discover(host.store, NOW)) == ["shop"]
    host.stack("wiki", COMPOSE)
    assert names(memory.discover(host.store, NOW + timedelta(minutes=5))) == ["shop"]
    host.store.set_note(CHANGED_NOTE, "now")
    assert names(memory.discover(host.store, NOW + timedelta(minutes=6))) == ["shop", "wiki"]
    host.stack("photos", COMPOSE)
    assert "photos" in names(memory.discover(host.store, NOW + timedelta(hours=1)))


def test_containers_are_those_of_now(host, memory, api, image):
    import docker.errors

    shop = host.settings.docker_root / "shop"
    project = f"stackward-unit-{uuid.uuid4().hex[:8]}"
    (shop / "compose.yaml").write_text(f"name: {project}\n{COMPOSE}")
    assert memory.discover(host.store, NOW).stacks[0].containers == ()
    labels = {"com.docker.compose.project": project, "com.docker.compose.project.working_dir": str(shop)}
    made = api.create_container(image, command=["sleep", "1000"], labels=labels, stop_signal="SIGKILL")["Id"]
    try:
        api.start(made)
        assert [one.state for one in memory.discover(host.store, NOW).stacks[0].containers] == ["running"]
        api.kill(made)
        api.wait(made)
        assert [one.state for one in memory.discover(host.store, NOW).stacks[0].containers] == ["exited"]
    finally:
        with suppress(docker.errors.NotFound):
            api.remove_container(made, force=True, v=True)


def test_where_docker_does_not_answer_stacks_are_known_and_containers_are_not(host, needs_compose, tmp_path):
    away = Memory(replace(host.settings, docker_host=f"unix://{tmp_path}/no-docker.sock"), patience_seconds=0)
    found = away.discover(host.store, NOW)
    assert names(found) == ["shop"]
    assert found.docker_error
