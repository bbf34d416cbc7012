"""When the containers of a project are well: real ones."""

from __future__ import annotations

import time
import uuid
from contextlib import suppress
from dataclasses import replace

import docker.errors
import pytest

from stackward.steps.instance import healthy, leftovers
from stackward.tools.docker import Docker
from unit.hosts import DOCKER_HOST


@pytest.fixture
def project():
    return f"unit{uuid.uuid4().hex[:8]}"


@pytest.fixture
def start(api, image, project):
    """Start a container of a service that runs a shell script."""
    made = []

    def started(service, script, *, check="", restart="no"):
        health = {"test": ["CMD-SHELL", check], "interval": 200_000_000, "retries": 2} if check else None
        policy = {"Name": restart, "MaximumRetryCount": 0}
        container = api.create_container(
            image,
            command=["sh", "-c", script],
            labels={"com.docker.compose.project": project, "com.docker.compose.service": service},
            host_config=api.create_host_config(restart_policy=policy),
            healthcheck=health,
            stop_signal="SIGKILL",
        )["Id"]
        made.append(container)
        api.start(container)

    yield started
    for container in made:
        with suppress(docker.errors.NotFound):
            api.remove_container(container, force=True, v=True)


def look(project, *services, limit=15.0, before=None):
    found = healthy.wait(Docker(DOCKER_HOST), project, services, limit_seconds=limit, settle_seconds=1, before=before)
    return {health.service: (health.good, health.why) for health in found}


def test_healthy_running_and_ended_well_are_good(start, project):
    start("checked", "sleep 100", check="true")
    start("plain", "sleep 100")
    start("task", "true")
    found = look(project, "checked", "plain", "task")
    assert found == {"checked": (True, "healthy"), "plain": (True, "running"), "task": (True, "ended well")}


def test_one_that_ended_badly_ends_the_wait_and_says_its_last_words(start, project):
    start("task", "echo no such table; exit 3")
    start("slow", "sleep 100", check="false")
    assert look(project, "task", "slow") == {"task": (False, "ended with exit code 3: no such table")}


def test_one_that_crashes_again_and_again_is_not_taken_for_running(start, project):
    start("loop", "sleep 0.2; exit 1", restart="always")
    good, why = look(project, "loop")["loop"]
    assert not good
    assert "restarts again and again, last with exit code 1" in why


# Its state lies on the container's own disk: crashes three times, as while a database boots, and then runs.
THRICE = "for once in /1 /2 /3; do [ -e $once ] || { : >$once; exit 1; }; done; exec sleep 100"


def test_what_was_restarted_before_the_wait_says_nothing_of_it_now(start, project):
    start("app", THRICE, restart="unless-stopped")
    docker = Docker(DOCKER_HOST)
    for _ in range(100):
        (found,) = docker.containers(project)
        if found.restart_count >= healthy.RESTARTS and found.state == "running":
            break
        time.sleep(0.1)
    assert look(project, "app")["app"][1].startswith("restarts again and again")
    before = healthy.restart_counts(docker, project)
    assert look(project, "app", before=before) == {"app": (True, "running")}
    leftovers.rest(docker, project, before)
    assert docker.containers(project)[0].state == "running"
    leftovers.rest(docker, project, {})
    assert docker.containers(project)[0].state == "exited"


def test_restarts_are_counted_anew_where_a_person_started_it(start, project):
    start("app", "sleep 100")
    (found,) = Docker(DOCKER_HOST).containers(project)
    counted = [healthy.restarts_since(replace(found, restart_count=count), {found.id: 5}) for count in (2, 5, 9)]
    assert counted == [2, 0, 4]


def test_one_that_needs_its_time_gets_it(start, project):
    start("recovers", "sleep 3; echo done >/tmp/ready; sleep 100", check="cat /tmp/ready")
    assert look(project, "recovers") == {"recovers": (True, "healthy")}


def test_one_that_never_becomes_healthy_is_told_when_the_time_is_up(start, project):
    start("never", "sleep 100", check="false")
    good, why = look(project, "never", limit=2)["never"]
    assert not good
    assert why.startswith("is unhealthy after 2 s")


def test_a_service_without_a_container_is_missed(api, project):
    assert look(project, "gone")["gone"] == (False, "has no container")
