"""Restores of stacks whose containers run, with a real Docker Engine."""

import os
import pickle
import shutil
import subprocess
import sys
import uuid
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import docker.errors
import pytest

from stackward.core.errors import RefusedError, StackwardError
from stackward.core.model import Outcome
from stackward.core.progress import Silent
from stackward.jobs import restore
from stackward.jobs.restore import Means, Request
from stackward.stacks import discover
from stackward.steps.undo import Undo
from stackward.tools.docker import Docker
from unit.backups import seal, stack_entry, tree, write_files
from unit.hosts import DOCKER_HOST, SmallHost

NOW = datetime(2026, 11, 3, 12, 0, tzinfo=UTC)


class RunningStack:
    """A stack `shop` (under a name of its own) with a `data` directory and a named volume, in a real container."""

    def __init__(self, root, api, image):
        self.api, self.image = api, image
        self.name = f"stackward-unit-{uuid.uuid4().hex[:8]}"
        self.volume = f"{self.name}_files"
        self.host = SmallHost(root, docker_host=DOCKER_HOST, docker_volumes=Path("/var/lib/docker/volumes"))
        self.engine = Docker(DOCKER_HOST)
        self.directory = self.host.stack(
            self.name,
            f"""
            services:
              web:
                image: {image}
                volumes: ["./data:/data", "files:/files"]
            volumes:
              files: {{}}
            """,
        )
        self.data = self.directory / "data"
        self.data.mkdir()
        (self.data / "f").write_text("now")
        self.containers = []
        self.volumes = [self.volume]

    def up(self, **labels):
        """What Compose would start."""
        labels = {
            "com.docker.compose.project": self.name,
            "com.docker.compose.service": "web",
            "com.docker.compose.project.working_dir": str(self.directory),
            **labels,
        }
        binds = [f"{self.data}:/data", f"{self.volume}:/files"]
        made = self.api.create_container(
            self.image,
            command=["sleep", "1000"],
            labels=labels,
            stop_signal="SIGKILL",
            host_config=self.api.create_host_config(binds=binds),
        )["Id"]
        self.containers.append(made)
        self.api.start(made)
        return made

    @property
    def files(self):
        return Path(self.api.inspect_volume(self.volume)["Mountpoint"])

    def backup(self):
        at = NOW - timedelta(hours=1)
        day = self.host.settings.backup_root / "data-2026-11-03"
        mounts = f".mounts/{self.name}/{self.volume}"
        write_files(day, {f"{self.name}/f": b"then", f"{mounts}/g": b"then"})
        seal(
            day,
            at,
            stack_entry(
                self.name,
                at,
                tree(self.name, self.data),
                tree(mounts, kind="volume", volume=self.volume, mount_name=self.volume),
            ),
        )

    def means(self, run_id="r1"):
        settings = self.host.settings
        undo = Undo(settings.state_dir / "undo", self.engine)
        return Means(settings, self.engine, undo, NOW, run_id, Silent())

    def stacks(self):
        return discover(self.host.settings, self.engine, self.host.store).stacks

    def restore(self, **more):
        return restore.run(Request(self.name, **more), self.means(), self.stacks())

    def states(self):
        return [self.api.inspect_container(one)["State"]["Status"] for one in self.containers]

    def remove(self):
        for one in self.containers:
            with suppress(docker.errors.NotFound):
                self.api.remove_container(one, force=True, v=True)
        for name in self.volumes:
            with suppress(docker.errors.NotFound):
                self.api.remove_volume(name, force=True)
        self.host.store.close()


@pytest.fixture
def shop(tmp_path, api, image, needs_compose):
    made = RunningStack(tmp_path, api, image)
    yield made
    made.remove()


def test_a_running_stack_is_stopped_restored_and_running_again_on_the_restored_data(shop):
    container = shop.up()
    (shop.files / "g").write_text("now")
    shop.backup()
    before = shop.api.inspect_container(container)["State"]["StartedAt"]

    result = shop.restore()

    assert result.outcome is Outcome.OK
    assert result.stacks[0].standstill_seconds > 0
    assert shop.states() == ["running"]
    assert shop.api.inspect_container(container)["State"]["StartedAt"] > before
    seen = shop.engine.exec(container, ["cat", "/data/f", "/files/g"], timeout_seconds=10)
    assert seen.output_tail == "thenthen"

    restore.undo_last(shop.stacks()[0], shop.means("r2"))

    seen = shop.engine.exec(container, ["cat", "/data/f", "/files/g"], timeout_seconds=10)
    assert seen.output_tail == "nownow"
    assert shop.states() == ["running"]


def test_a_volume_that_is_gone_is_made_as_compose_would(shop):
    shop.backup()
    shutil.rmtree(shop.data)

    result = shop.restore()

    assert result.outcome is Outcome.OK
    assert (shop.data / "f").read_text() == "then"
    assert (shop.files / "g").read_text() == "then"
    assert shop.api.inspect_volume(shop.volume)["Labels"] == {
        "com.docker.compose.project": shop.name,
        "com.docker.compose.volume": "files",
    }
    assert any("was not running" in note for note in result.details["not_restored"])


def test_a_volume_with_driver_options_is_filled_through_its_mount(shop, tmp_path):
    disk = tmp_path / "disk.img"
    subprocess.run(["truncate", "-s", "16M", disk], check=True)
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    loop = subprocess.run(["losetup", "--find", "--show", disk], check=True, capture_output=True, text=True).stdout
    try:
        options = {"type": "ext4", "device": loop.strip()}
        shop.api.create_volume(shop.volume, driver="local", driver_opts=options)
        shop.up()
        (shop.files / "g").write_text("now")
        (shop.files / "only-now").write_text("x")
        shop.api.stop(shop.containers[0])
        shop.backup()

        shop.restore()

        shop.api.start(shop.containers[0])
        assert (shop.files / "g").read_text() == "then"
        assert not (shop.files / "only-now").exists()

        restore.undo_last(shop.stacks()[0], shop.means("r2"))

        assert (shop.files / "g").read_text() == "now"
        assert (shop.files / "only-now").exists()
    finally:
        shop.remove()
        subprocess.run(["losetup", "--detach", loop.strip()], check=True)


def test_a_tree_that_another_projects_container_uses_is_not_swapped_under_it(shop):
    shop.backup()
    stranger = shop.up(**{"com.docker.compose.project": "other", "com.docker.compose.project.working_dir": "/other"})

    with pytest.raises(RefusedError, match="which is not of this stack, uses"):
        shop.restore()
    assert (shop.data / "f").read_text() == "now"

    shop.api.stop(stranger)
    assert shop.restore().outcome is Outcome.OK


def test_a_copy_that_fails_never_stopped_the_stack(shop):
    container = shop.up()
    shop.backup()
    day = shop.host.settings.backup_root / "data-2026-11-03"
    shutil.rmtree(day / shop.name)
    (day / shop.name).write_text("no directory")
    before = shop.api.inspect_container(container)["State"]["StartedAt"]

    with pytest.raises(StackwardError, match="no directory"):
        shop.restore(force=True)

    assert shop.api.inspect_container(container)["State"]["StartedAt"] == before
    assert (shop.data / "f").read_text() == "now"


KILLED = """
import pickle, sys
from datetime import UTC, datetime
from stackward.core.progress import Silent
from stackward.jobs import restore
from stackward.stacks import discover
from stackward.steps.undo import Undo
from stackward.store import Store
from stackward.tools.docker import Docker
from stackward.tools.locks import Locks
settings, name, now = pickle.loads(bytes.fromhex(sys.argv[1]))
store = Store.open(settings.state_dir / "s.sqlite", now=now, locks=Locks(settings.state_dir / "l"))
engine = Docker(settings.docker_host)
undo = Undo(settings.state_dir / "undo", engine, settings.crash_point)
means = restore.Means(settings, engine, undo, now, "r1", Silent())
restore.run(restore.Request(name), means, discover(settings, engine, store).stacks)
"""


@pytest.mark.parametrize("point", ["data-undo-written", "restore-stopped", "restore-aside", "restore-copied"])
def test_a_killed_restore_leaves_no_stack_stopped_and_no_half_of_its_data(shop, point):
    container = shop.up()
    (shop.files / "g").write_text("now")
    shop.backup()
    settings = replace(shop.host.settings, crash_point=point)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, pickle.dumps((settings, shop.name, NOW)).hex()],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        check=False,
    )
    assert killed.returncode == -9

    messages = Undo(settings.state_dir / "undo", shop.engine).take_back_open()

    assert all(message.startswith("took back") for message in messages)
    assert shop.states() == ["running"]
    seen = shop.engine.exec(container, ["cat", "/data/f", "/files/g"], timeout_seconds=10)
    assert seen.output_tail == "nownow"


def test_a_tree_that_is_a_mount_point_is_filled_only_when_all_that_mount_it_stand_still(shop, tmp_path):
    """There is no outside of it that a rename reaches: a running container could lead the copy astray."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", shop.data], check=True)
    try:
        (shop.data / "f").write_text("now")
        shop.up()
        shop.backup()
        seen = {}

        class Watching(Silent):
            def step(self, text, **_):
                if "copying" in text:
                    seen[text] = shop.states()

        means = replace(shop.means(), progress=Watching())
        result = restore.run(Request(shop.name), means, shop.stacks())

        assert result.outcome is Outcome.OK
        (filled,) = [states for text, states in seen.items() if "the stack stands still" in text]
        assert filled == ["exited"]
        assert shop.states() == ["running"]
        assert (shop.data / "f").read_text() == "then"

        stranger = shop.up(
            **{"com.docker.compose.project": "other", "com.docker.compose.project.working_dir": "/other"}
        )
        with pytest.raises(RefusedError, match="which is not of this stack, uses"):
            shop.restore(force=True)
        shop.api.stop(stranger)
        restore.undo_last(shop.stacks()[0], shop.means("r2"))
        assert (shop.data / "f").read_text() == "now"
    finally:
        shop.remove()
        subprocess.run(["umount", shop.data], check=True)
