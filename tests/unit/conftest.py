"""What many unit tests need from the machine: Compose, an engine, and a tiny image."""

import uuid

import pytest


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


# Modules whose tests mostly wait: for a daemon's ticks, for time limits. They begin first, beside those that compute.
WAITING = ("test_daemon", "test_watcher", "test_process", "test_docker", "test_restore_running", "test_healthy")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in WAITING)
