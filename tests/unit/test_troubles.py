"""Why an instance did not start, as it is told: real containers, real Compose."""

from __future__ import annotations

import uuid

import pytest

from stackward.steps.instance import troubles
from stackward.tools import compose
from stackward.tools.docker import Docker
from stackward.tools.process import CommandError
from unit.hosts import DOCKER_HOST

pytestmark = pytest.mark.usefixtures("needs_compose", "api")


@pytest.fixture
def told(tmp_path, image):
    """What is told of a project with a service `first`, and `web` that waits until it is well."""
    project = f"unit{uuid.uuid4().hex[:8]}"

    def started(first, condition="service_healthy"):
        (tmp_path / "compose.yaml").write_text(
            f"name: {project}\nservices:\n  first: {{network_mode: none, stop_signal: SIGKILL, {first.replace('IMAGE', image)}}}\n"
            f"  web: {{image: '{image}', network_mode: none, command: [sleep, inf], stop_signal: SIGKILL,"
            f" depends_on: {{first: {{condition: {condition}}}}}}}\n"
        )
        with pytest.raises(CommandError) as raised:
            compose.up(tmp_path)
        return troubles.of_start(Docker(DOCKER_HOST), project, ("first", "web"), raised.value)

    yield started
    compose.down(tmp_path)


def test_one_that_ends_says_its_exit_code_and_its_last_words(told):
    words = "image: 'IMAGE', command: [sh, -c, 'echo one; echo two; echo no such table; exit 3']"
    assert told(words, "service_completed_successfully") == ["first ended with exit code 3: one / two / no such table"]


def test_one_that_is_unhealthy_says_so_and_its_last_words(told):
    check = "healthcheck: {test: [CMD, 'false'], interval: 200ms, retries: 1}"
    words = f"image: 'IMAGE', command: [sh, -c, 'echo still waiting; exec sleep inf'], {check}"
    assert told(words) == ["first is unhealthy: still waiting"]


def test_where_no_container_says_anything_compose_does_in_a_sentence(told):
    (text,) = told("image: 'no-such-image:1', pull_policy: never")
    assert text == "Compose could not start it: Error response from daemon: No such image: no-such-image:1"


def test_words_are_bounded_and_no_account_of_progress():
    said = " Network a_default  Creating\n Container a-db-1  Started\n" + "the port is taken\n" * 3 + "x" * 900
    found = troubles.words_of(CommandError(["docker"], 1, said))
    assert len(found) == 500
    assert "Creating" not in found
    assert troubles.words_of(CommandError(["docker"], 1, " Container a  Created\n")) == "Container a  Created"


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ("all predefined address pools have been fully subnetted", "default-address-pools"),
        ("could not find an available, non-overlapping IPv4 address pool among the defaults", "default-address-pools"),
        ("Pool overlaps with other one on this address space", "STACKWARD_STAGING_SUBNETS"),
        ("no such image", ""),
    ],
)
def test_a_network_that_docker_cannot_make_is_explained(said, what):
    assert (troubles.explained(said) == said) is (not what)
    assert what in troubles.explained(said)


def test_also_where_an_instance_cannot_start_for_it(api):
    """A project without containers: what Compose says is all there is."""
    said = "failed to create network: Error response from daemon: Pool overlaps with other one on this address space"
    error = CommandError(["docker"], 1, said)
    (text,) = troubles.of_start(Docker(DOCKER_HOST), f"unit{uuid.uuid4().hex}", ("web",), error)
    assert text.startswith(f"Compose could not start it: {said}; HINT: STACKWARD_STAGING_SUBNETS")


def test_where_no_container_is_in_trouble_none_has_said_anything(api):
    assert troubles.of_containers(Docker(DOCKER_HOST), f"unit{uuid.uuid4().hex}", ("web",)) is None
