"""The rebuild of staging with a real engine, on volumes on which something is wrong."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stackward.core.errors import RefusedError, StackwardError
from stackward.core.model import JobResult, Outcome
from stackward.core.progress import Silent
from stackward.jobs import staging
from stackward.steps.undo import Undo
from stackward.tools import btrfs, compose
from stackward.tools.docker import Docker
from unit.hosts import DOCKER_HOST, SmallHost

pytestmark = [pytest.mark.btrfs, pytest.mark.usefixtures("needs_compose")]


class Staged:
    """A host with one stack whose data lies on the volume."""

    def __init__(self, root: Path, volume: Path, image: str) -> None:
        self.volume, self.image, self.name = volume, image, f"stackward-unit-{uuid.uuid4().hex[:8]}"
        self.host = SmallHost(root / "host", docker_host=DOCKER_HOST, volume=volume)
        self.docker = Docker(DOCKER_HOST)
        self.data = volume / self.name
        btrfs.create_subvolume(self.data)
        (self.data / "f").write_text("one\n")
        self.host.stack(
            self.name,
            f"""
            x-stackward: {{staging: {{enabled: true, wait: 5s}}}}
            services:
              web:
                image: {image}
                command: [sh, -c, "cat /data/f; exec sleep 1000"]
                stop_signal: SIGKILL
                network_mode: none
                volumes: ["{self.data}:/data"]
            """,
        )

    def refresh(self) -> JobResult:
        undo = Undo(self.host.settings.state_dir / "undo", self.docker)
        means = staging.Means(self.host.settings, self.docker, undo, Silent(), cleaned_seconds=1.0)
        return staging.refresh(means, self.host.discover().stacks)

    def instance(self) -> tuple[str, str]:
        """The one container of the instance, and what it saw."""
        (found,) = self.docker.containers(f"{self.name}-staging")
        assert found.state == "running"
        return found.id, self.docker.logs(found.id)

    def remove(self) -> None:
        for directory in (self.host.settings.state_dir / "staging").glob("*"):
            compose.down(directory)
        self.host.store.close()


@pytest.fixture
def staged(tmp_path: Path, volume: Path, image: str) -> Iterator[Staged]:
    made = Staged(tmp_path, volume, image)
    yield made
    made.remove()


def test_a_database_that_takes_its_time_to_recover_is_waited_for_by_whoever_depends_on_it(staged: Staged) -> None:
    """Its healthcheck gives up after a second, which in production, where it recovered long ago, is enough."""
    recovers = "sleep 4; true >/tmp/ready; exec sleep 1000"
    staged.host.stack(
        staged.name,
        f"""
        x-stackward: {{staging: {{enabled: true, wait: 60s}}}}
        services:
          db:
            image: {staged.image}
            command: [sh, -c, "{recovers}"]
            stop_signal: SIGKILL
            network_mode: none
            volumes: ["{staged.data}:/data"]
            healthcheck: {{test: [CMD, cat, /tmp/ready], interval: 1s, retries: 1}}
          web:
            image: {staged.image}
            command: [sleep, "1000"]
            stop_signal: SIGKILL
            network_mode: none
            depends_on: {{db: {{condition: service_healthy}}}}
        """,
    )
    result = staged.refresh()
    assert result.outcome is Outcome.OK, result
    states = {one.service: one.state for one in staged.docker.containers(f"{staged.name}-staging")}
    assert states == {"db": "running", "web": "running"}


def test_whoever_holds_last_nights_snapshot_is_told(staged: Staged, api: Any) -> None:
    assert staged.refresh().outcome is Outcome.OK
    place = staged.volume / ".nightly" / staged.name
    other = api.create_container(
        staged.image,
        command=["sleep", "1000"],
        name=f"{staged.name}-guest",
        host_config=api.create_host_config(binds=[f"{place}:/x:ro"]),
    )["Id"]
    api.start(other)
    try:
        (staged.data / "f").write_text("two\n")
        result = staged.refresh()
    finally:
        api.remove_container(other, force=True, v=True)
    assert result.outcome is Outcome.WARN
    assert f"container {staged.name}-guest: {place}" in result.reasons[0]
    assert "sleep (process" in result.reasons[0]
    assert staged.instance()[1] == "two\n"


@pytest.fixture(params=["data", "metadata"])
def full(request: pytest.FixtureRequest, tmp_path: Path, image: str) -> Iterator[Staged]:
    """On a small volume that staging runs on, and that then has no room for a block more."""
    disk, point = tmp_path / "small.img", tmp_path / "small"
    kind = ["--mixed"] if request.param == "data" else ["-m", "single", "-d", "single"]
    subprocess.run(["truncate", "-s", "80M", disk], check=True)
    subprocess.run(["mkfs.btrfs", "-q", *kind, disk], check=True, capture_output=True)
    point.mkdir()
    subprocess.run(["mount", "-o", "loop", disk, point], check=True)
    made = Staged(tmp_path, point, image)
    try:
        assert made.refresh().outcome is Outcome.OK
        for number in range(100):
            if fallocate(point / f"large{number}", 4 << 20):
                break
        if request.param == "metadata":  # there is room for data, and none for its names
            (point / "large0").unlink()
        with suppress(OSError):
            for number in range(100_000):
                os.symlink("x" * 3900, point / f"link{number}")
        yield made
    finally:
        made.remove()
        subprocess.run(["umount", point], check=True)


def fallocate(path: Path, size: int) -> bool:
    """Whether there was no room for all of it."""
    with path.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError:
            return True
    return False


def test_on_a_full_volume_staging_goes_on_and_the_reason_is_said(full: Staged) -> None:
    """It is found out when the snapshot is made, when the last of it is written, or not before the names are swapped."""
    for _ in range(20):  # a snapshot takes little: some may still be made
        try:
            result = full.refresh()
        except StackwardError as error:
            said = error.message
            break
        said = result.reasons[0] if result.reasons else ""
        if result.outcome is Outcome.FAILED:
            break
    assert "has no room for a snapshot" in said
    assert full.instance()[1] == "one\n"
    assert not (full.volume / ".nightly.new").exists()


def test_without_btrfs_and_without_docker_it_is_refused_before_anything_is_stopped(
    staged: Staged, tmp_path: Path
) -> None:
    staged.refresh()
    before = staged.instance()
    settings = staged.host.settings
    for changes, why in (({"volume": tmp_path}, "not on Btrfs"), ({"volume": tmp_path / "none"}, "there is no")):
        staged.host.settings = replace(settings, **changes)
        with pytest.raises(RefusedError, match=why):
            staged.refresh()
    assert staged.instance() == before
    staged.host.settings = settings
