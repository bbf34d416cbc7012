"""The rebuild of staging with a real engine, on volumes on which something is wrong."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from stackward.core.errors import RefusedError, StackwardError
from stackward.core.model import JobResult, Outcome
from stackward.core.progress import Silent
from stackward.jobs import staging
from stackward.steps.undo import Undo
from stackward.tools import btrfs, compose
from stackward.tools.docker import PROJECT_LABEL, Docker
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

    def means(self) -> staging.Means:
        undo = Undo(self.host.settings.state_dir / "undo", self.docker)
        return staging.Means(self.host.settings, self.docker, undo, Silent(), cleaned_seconds=1.0)

    def refresh(self) -> JobResult:
        return staging.refresh(self.means(), self.host.discover().stacks)

    def up(self) -> JobResult:
        return staging.up(self.means(), self.host.discover().stacks, [self.name])

    def down(self) -> JobResult:
        return staging.down(self.means(), self.host.discover().stacks, ())

    def has(self) -> tuple[set[str], set[str]]:
        """The networks and the volumes of the instance, by what Compose calls them."""
        project = f"{self.name}-staging"
        networks = {one.key for one in self.docker.networks() if one.project == project}
        label = "com.docker.compose.volume"
        volumes = self.docker.volumes().values()
        return networks, {one.labels[label] for one in volumes if one.labels.get(PROJECT_LABEL) == project}

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


CHANGING = """
x-stackward: {{staging: {{enabled: true, wait: 20s, empty: "cache,spool"}}}}
services:
  web: {{image: "{image}", command: [sleep, "1000"], stop_signal: SIGKILL, networks: [front, back],
         volumes: ["{data}:/data", "cache:/cache", "spool:/spool"]}}
  gone: {{image: "{image}", command: [sleep, "1000"], stop_signal: SIGKILL, networks: [back]}}
networks: {{front: {{}}, back: {{}}}}
volumes: {{cache: {{}}, spool: {{}}}}
"""


def test_what_an_instance_has_no_more_after_its_stack_changed_is_gone(staged: Staged, api: Any) -> None:
    """What the instance has still stays."""
    text = CHANGING.format(image=staged.image, data=staged.data)
    staged.host.stack(staged.name, text)
    assert staged.refresh().outcome is Outcome.OK
    assert staged.has() == ({"front", "back"}, {"cache", "spool"})
    cache = Path(api.inspect_volume(f"{staged.name}-staging_cache")["Mountpoint"])
    (cache / "warm").write_text("x")
    lines = [line for line in text.replace("[front, back]", "[front]").splitlines() if not line.startswith("  gone")]
    less = "\n".join(lines).replace(', "spool:/spool"', "").replace("front: {}, back: {}", "front: {}")
    staged.host.stack(staged.name, less)
    result = staged.up()
    assert result.outcome is Outcome.OK, result
    assert staged.has() == ({"front"}, {"cache"})
    assert (cache / "warm").exists()
    assert [one.service for one in staged.docker.containers(f"{staged.name}-staging")] == ["web"]


def test_what_others_have_who_are_called_alike_stays(staged: Staged, api: Any) -> None:
    """Also what they made since the instance was started."""
    assert staged.refresh().outcome is Outcome.OK
    labels = {PROJECT_LABEL: f"{staged.name}-staging", "com.docker.compose.volume": "theirs"}
    api.create_volume(f"{staged.name}-theirs", labels=labels)
    try:
        for result in (staged.up(), staged.refresh()):
            assert f"the volume {staged.name}-theirs" in result.stacks[0].reasons[0]
            assert staged.has()[1] == {"theirs"}
    finally:
        api.remove_volume(f"{staged.name}-theirs")


def test_an_instance_that_is_well_is_so_though_something_of_before_cannot_be_removed(staged: Staged, api: Any) -> None:
    """Somebody's container has it."""
    text = CHANGING.format(image=staged.image, data=staged.data)
    staged.host.stack(staged.name, text)
    assert staged.refresh().outcome is Outcome.OK
    project = f"{staged.name}-staging"
    guest = api.create_container(
        staged.image,
        command=["sleep", "1000"],
        name=f"{staged.name}-guest",
        stop_signal="SIGKILL",
        host_config=api.create_host_config(network_mode=f"{project}_back", binds=[f"{project}_spool:/x"]),
    )["Id"]
    api.start(guest)
    lines = [line for line in text.replace("[front, back]", "[front]").splitlines() if not line.startswith("  gone")]
    less = "\n".join(lines).replace(', "spool:/spool"', "").replace("front: {}, back: {}", "front: {}")
    staged.host.stack(staged.name, less)
    try:
        (part,) = staged.up().stacks
        assert part.outcome is Outcome.WARN
        network, volume = part.reasons
        assert f"{project}_back" in network
        assert f"{project}_spool" in volume
        assert [one.service for one in staged.docker.containers(project)] == ["web"]
    finally:
        api.remove_container(guest, force=True, v=True)
    assert staged.up().stacks[0].outcome is Outcome.OK
    assert staged.has() == ({"front"}, {"cache"})


def test_nothing_of_somebody_elses_goes_when_an_instance_goes_down(staged: Staged, api: Any) -> None:
    """They began to be called alike after the instance was started."""
    staged.host.stack(staged.name, CHANGING.format(image=staged.image, data=staged.data))
    assert staged.refresh().outcome is Outcome.OK
    project = f"{staged.name}-staging"
    labels = {PROJECT_LABEL: project, "com.docker.compose.project.working_dir": "/srv/theirs"}
    theirs = api.create_container(staged.image, command=["sleep", "1000"], name=f"{project}-theirs", labels=labels)[
        "Id"
    ]
    try:
        assert f"container {project}-theirs" in staged.down().stacks[0].reasons[0]
        assert any(f"container {project}-theirs" in reason for reason in staged.refresh().reasons)
        assert theirs in [one.id for one in staged.docker.containers(project)]
    finally:
        api.remove_container(theirs, force=True, v=True)
    assert staged.down().outcome is Outcome.OK
    api.create_volume(f"{project}_cache")
    try:
        assert f"volume {project}_cache" in staged.down().stacks[0].reasons[0]
        assert api.inspect_volume(f"{project}_cache")
    finally:
        api.remove_volume(f"{project}_cache")


def test_networks_of_instances_take_none_of_dockers_own_subnets(staged: Staged, api: Any) -> None:
    staged.host.stack(staged.name, CHANGING.format(image=staged.image, data=staged.data))
    other = api.create_network(f"{staged.name}-other", ipam={"Config": [{"Subnet": "198.19.0.0/18"}]})["Id"]
    settings = staged.host.settings
    try:
        assert staged.refresh().outcome is Outcome.OK
        project = f"{staged.name}-staging"
        subnets = [IPv4Network(n.subnets[0]) for n in staged.docker.networks() if n.project == project]
        assert len(subnets) == 2
        assert all(subnet.subnet_of(IPv4Network("198.19.64.0/18")) for subnet in subnets)
        assert staged.up().outcome is Outcome.OK
        again = [IPv4Network(n.subnets[0]) for n in staged.docker.networks() if n.project == project]
        assert set(again) == set(subnets)
        staged.host.settings = replace(settings, staging_subnets=(IPv4Network("198.19.0.0/24"),))
        result = staged.up()
        assert "no subnet in the lower half of 198.19.0.0/24 is free" in result.stacks[0].reasons[0]
    finally:
        staged.host.settings = settings
        staged.down()
        api.remove_network(other)


def test_a_down_fails_nothing(staged: Staged) -> None:
    staged.refresh()
    result = staged.down()
    assert (result.outcome, result.stacks[0].outcome, result.reasons) == (Outcome.OK, Outcome.OK, ())
    assert staged.docker.containers(f"{staged.name}-staging") == []


def test_one_that_cannot_be_stopped_fails_alone(staged: Staged) -> None:
    staged.refresh()
    generated = staged.host.settings.state_dir / "staging" / staged.name / "compose.yaml"
    written = generated.read_text()
    staged.host.stack("other", f"x-stackward: {{staging: true}}\nservices: {{web: {{image: '{staged.image}'}}}}\n")
    try:
        generated.write_text("{")
        result = staged.down()
    finally:
        generated.write_text(written)
    assert {one.stack: one.outcome for one in result.stacks} == {staged.name: Outcome.FAILED, "other": Outcome.OK}


def test_an_instance_that_crashes_for_ever_is_told_and_at_rest(staged: Staged) -> None:
    compose_file = staged.host.settings.docker_root / staged.name / "compose.yaml"
    text = compose_file.read_text().replace("cat /data/f; exec sleep 1000", "exit 3")
    compose_file.write_text(text.replace("stop_signal", "restart: always\n    stop_signal"))
    result = staged.refresh()
    assert "restarts again and again" in result.stacks[0].reasons[0]
    (found,) = staged.docker.containers(f"{staged.name}-staging")
    assert (found.state, found.restart_policy) == ("exited", "unless-stopped")


DOT_ENV = """BASE='a$b #c'
TOKEN="${BASE}-\\t${NONE:-d${BASE}}\\$x
second" # why
export ONE = plain$BASE $$HOME  # why
"""


def test_a_secret_of_the_environment_is_what_production_has(staged: Staged) -> None:
    """Compose reads `.env` by rules of its own."""
    staged.host.stack(
        staged.name,
        f"""
        x-stackward: {{staging: {{enabled: true, wait: 20s}}}}
        services:
          web:
            image: {staged.image}
            command: [sh, -c, "cat /run/secrets/token /etc/one; exec sleep 1000"]
            stop_signal: SIGKILL
            network_mode: none
            volumes: ["{staged.data}:/data"]
            secrets: [token]
            configs: [{{source: one, target: /etc/one}}]
        secrets: {{token: {{environment: TOKEN}}}}
        configs: {{one: {{environment: ONE}}}}
        """,
        _dot_env=DOT_ENV,
    )
    directory = staged.host.settings.docker_root / staged.name
    compose.up(directory)
    try:
        (production,) = staged.docker.containers(staged.name)
        result = staged.refresh()
        assert result.outcome is Outcome.OK, result
        assert staged.instance()[1] == staged.docker.logs(production.id)
        assert "a$b #c-\t" in staged.instance()[1]
    finally:
        compose.down(directory)


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
        with subprocess.Popen(["sleep", "1000"], cwd=place) as process:  # what has no more rights than we can be seen
            try:
                result = staged.refresh()
            finally:
                process.kill()
    finally:
        api.remove_container(other, force=True, v=True)
    assert result.outcome is Outcome.WARN
    assert f"container {staged.name}-guest: {place}" in result.reasons[0]
    assert f"sleep (process {process.pid}): working directory" in result.reasons[0]
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
