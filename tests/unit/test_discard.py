"""What a drill leaves is removed also where Compose cannot read the file any more that it was made from."""

from __future__ import annotations

import subprocess
import uuid

import pytest

from stackward.core.staging_networks import LABEL
from stackward.steps.undo import Step, Undo, WayBackError
from stackward.tools import compose
from stackward.tools.docker import Docker
from unit.hosts import DOCKER_HOST

pytestmark = pytest.mark.usefixtures("needs_compose", "api")


@pytest.fixture
def started(tmp_path, image):
    """A project with a container, a network and a volume."""
    project = f"unit{uuid.uuid4().hex[:8]}-drill"
    home = tmp_path / "home"
    home.mkdir()
    (home / "compose.yaml").write_text(
        f"name: {project}\nservices: {{a: {{image: '{image}', command: [sleep, inf], stop_signal: SIGKILL,"
        " volumes: ['kept:/v']}}\n"
        f"volumes: {{kept: {{labels: {{{LABEL}: {project}}}}}}}\n"
        f"networks: {{default: {{internal: true, labels: {{{LABEL}: {project}}}}}}}\n"
    )
    compose.up(home)
    yield project, home
    subprocess.run(["docker", "compose", "-p", project, "down", "-v"], check=False, capture_output=True)


def parts_of(api, project):
    label = {"label": f"com.docker.compose.project={project}"}
    volumes = api.volumes(filters=label).get("Volumes") or []
    return len(api.containers(all=True, filters=label)), len(api.networks(filters=label)), len(volumes)


def test_an_unreadable_file_is_no_reason_to_stay(api, started, tmp_path):
    project, home = started
    undo = Undo(tmp_path / "undo", Docker(DOCKER_HOST))
    assert parts_of(api, project) == (1, 1, 1)
    with undo.promised("drill", [Step("discard", str(home), project=project)]):
        (home / "compose.yaml").write_text('services: {a: {volumes: ["\\udcff:/x"\n')
    assert parts_of(api, project) == (0, 0, 0)
    assert not home.exists()
    assert undo.open_count() == 0


def test_what_a_project_that_is_down_has_is_left_alone(api, started, tmp_path):
    """Somebody's own, which is called so, too: no container tells whose its volume and network are."""
    project, home = started
    labels = {"com.docker.compose.project": project, "com.docker.compose.volume": "theirs"}
    api.create_volume(f"{project}_theirs", labels=labels)
    api.create_network(f"{project}_theirs", internal=True, labels={"com.docker.compose.project": project})
    undo = Undo(tmp_path / "undo", Docker(DOCKER_HOST))
    try:
        with undo.promised("drill", [Step("discard", str(home), project=project)]):
            (home / "compose.yaml").write_text("services: [")
        assert parts_of(api, project) == (0, 1, 1)
        assert not home.exists()
    finally:
        api.remove_volume(f"{project}_theirs")
        api.remove_network(f"{project}_theirs")


def test_what_compose_can_read_and_not_take_down_is_left_to_it(api, started, tmp_path):
    """Nothing is removed by what it is labelled as."""
    project, home = started
    file = home / "compose.yaml"
    good = file.read_text()
    file.write_text(good.replace("stop_signal", "pre_stop: [{command: [sh, -c, exit 1]}], stop_signal"))
    undo = Undo(tmp_path / "undo", Docker(DOCKER_HOST))
    with (
        pytest.raises(WayBackError, match="a hook exited"),
        undo.promised("drill", [Step("discard", str(home), project=project)]),
    ):
        pass
    assert parts_of(api, project) == (1, 1, 1)
    file.write_text(good)
    undo.take_back_open()
    assert undo.open_count() == 0
    assert parts_of(api, project) == (0, 0, 0)


def test_what_is_called_so_and_was_started_elsewhere_is_left_alone(api, started, tmp_path):
    project, home = started
    other = tmp_path / "other"
    other.mkdir()
    (other / "compose.yaml").write_text("services: [")
    undo = Undo(tmp_path / "undo", Docker(DOCKER_HOST))
    with (
        pytest.raises(WayBackError, match="of another project"),
        undo.promised("drill", [Step("discard", str(other), project=project)]),
    ):
        pass
    assert parts_of(api, project) == (1, 1, 1)
    assert home.exists()
