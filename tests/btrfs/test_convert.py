"""Moving a stack's data to the volume: with a real engine, real containers and a real Btrfs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import docker.errors
import pytest

from btrfs.life import Life, account
from hostile import flipped_for_link, leaks, make_victim, watched
from stackward.core.errors import RefusedError, SettingsError, StackwardError
from stackward.core.model import JobResult, Outcome
from stackward.core.progress import Silent
from stackward.jobs import convert
from stackward.jobs.convert import Request
from stackward.stacks import discover
from stackward.steps.restore import kept
from stackward.steps.restore.restoring import Means
from stackward.steps.undo import Step, Undo
from stackward.steps.volume import conversion, sameness
from stackward.tools import compose, filesystem, tree_root
from stackward.tools.docker import Docker
from unit.hosts import DOCKER_HOST, SmallHost

pytestmark = pytest.mark.btrfs
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Shop:
    """A stack with `data`, a bind `./library`, and a container that has both mounted."""

    def __init__(self, root: Path, volume: Path, image: str, crash_point: str = "") -> None:
        self.name, self.volume, self.image = f"stackward-unit-{uuid.uuid4().hex[:8]}", volume, image
        self.host = SmallHost(
            root / "host",
            docker_host=DOCKER_HOST,
            docker_volumes=Path("/var/lib/docker/volumes"),
            volume=volume,
            crash_point=crash_point,
        )
        self.directory = self.host.stack(
            self.name,
            f"""
            services:
              web:
                image: {image}
                volumes: ["./data:/data", "./library:/library"]
            """,
        )
        self.data, self.library = self.directory / "data", self.directory / "library"
        for place in (self.data, self.library):
            place.mkdir()
            (place / "f").write_text("before")
        self.container = ""

    def up(self, api: Any) -> None:
        labels = {
            "com.docker.compose.project": self.name,
            "com.docker.compose.service": "web",
            "com.docker.compose.project.working_dir": str(self.directory),
        }
        binds = [f"{self.data}:/data", f"{self.library}:/library"]
        config = api.create_host_config(binds=binds)
        command = ["sh", "-c", "while sleep 0.1; do echo written >> /data/log; done"]
        made = api.create_container(
            self.image, command=command, labels=labels, host_config=config, stop_signal="SIGKILL"
        )
        self.container = made["Id"]
        api.start(self.container)

    def means(self, run: str = "r1", now: datetime = NOW) -> Means:
        engine = Docker(DOCKER_HOST)
        settings = self.host.settings
        return Means(settings, engine, Undo(settings.state_dir / "undo", engine), now, run, Silent())

    def stacks(self) -> Any:
        return discover(self.host.settings, Docker(DOCKER_HOST), self.host.store).stacks

    def convert(self, tree: str | None = None, run: str = "r1", *, dry_run: bool = False) -> JobResult:
        return convert.run(Request(self.name, tree, dry_run=dry_run), self.means(run), self.stacks())

    def killed_at(self, point: str, act: str = "") -> subprocess.CompletedProcess[str]:
        """Convert the tree `act` ("": every one), or "undo" that, in a process that is killed at the point."""
        paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(convert.__file__).parents[2])]
        argv = [
            sys.executable,
            "-c",
            CRASH,
            json.dumps(paths),
            self.name,
            str(self.volume),
            str(self.host.root),
            point,
            act,
        ]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    def target(self, tree: str) -> Path:
        return self.volume / self.name / tree


class ShopWithVolume(Shop):
    """The same with its files in a named volume, made and started by Compose."""

    def __init__(self, root: Path, volume: Path, image: str) -> None:
        super().__init__(root, volume, image)
        self.host.stack(
            self.name,
            f"""
            services:
              web:
                image: {image}
                command: [sh, -c, "while sleep 0.1; do echo written >> /files/log; done"]
                stop_signal: SIGKILL
                stop_grace_period: 1s
                network_mode: none
                volumes: ["files:/files", "anonymous:/asked-for"]
            volumes:
              files: {{}}
              anonymous: {{}}
            """,
        )
        self.files, self.kept = f"{self.name}_files", f"{self.name}_files.before-stackward"
        self.meanwhile = f"{self.name}_files.meanwhile-stackward"

    def up(self, api: Any) -> None:  # noqa: ARG002 - Compose has its own way to the engine
        compose.up(self.directory)

    @property
    def place(self) -> Path:
        """Where production's files are now."""
        found = Docker(DOCKER_HOST).volume(self.files)
        assert found is not None
        return Path(found.options.get("device") or found.mountpoint)

    def running(self) -> list[str]:
        return [c.service for c in Docker(DOCKER_HOST).containers(self.name) if c.state == "running"]

    def remove(self, api: Any) -> None:
        names = {self.files, self.kept, self.meanwhile, f"{self.name}_anonymous"}
        for one in api.containers(all=True, filters={"label": f"com.docker.compose.project={self.name}"}):
            names |= {mount["Name"] for mount in one["Mounts"] if mount["Type"] == "volume"}
            api.remove_container(one["Id"], force=True, v=True)  # leaves those that it took over from another
        for name in names:
            with suppress(docker.errors.NotFound):
                api.remove_volume(name, force=True)
        self.host.store.close()


@pytest.fixture
def with_volume(tmp_path: Path, volume: Path, api: Any, image: str, needs_compose: None) -> Iterator[ShopWithVolume]:
    made = ShopWithVolume(tmp_path, volume, image)
    yield made
    made.remove(api)


def recover(shop: Shop) -> None:
    """What the appliance does when it starts again."""
    undo = Undo(shop.host.settings.state_dir / "undo", Docker(DOCKER_HOST))
    messages = undo.take_back_open()
    assert undo.open_count() == 0, messages


def is_written(place: Path) -> bool:
    """Whether the stack writes there."""
    log = place / "log"
    size = log.stat().st_size if log.exists() else 0
    deadline = datetime.now(UTC) + timedelta(seconds=20)
    while not log.exists() or log.stat().st_size == size:
        if datetime.now(UTC) > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_named_volume_goes_on_on_the_volume_and_comes_back(with_volume: ShopWithVolume, api: Any) -> None:
    shop = with_volume
    shop.up(api)
    before = api.inspect_volume(shop.files)
    mountpoint = Path(before["Mountpoint"])
    (mountpoint / "f").write_text("before")

    result = shop.convert("files")

    assert result.outcome is Outcome.OK
    after = api.inspect_volume(shop.files)
    assert after["Options"] == {"type": "none", "o": "bind", "device": str(shop.target(shop.files))}
    assert after["Labels"] == before["Labels"]
    assert shop.running() == ["web"]
    assert (shop.target(shop.files) / "f").read_text() == "before"
    assert is_written(shop.target(shop.files))
    assert (Path(api.inspect_volume(shop.kept)["Mountpoint"]) / "f").read_text() == "before"
    said = subprocess.run(
        [*compose.command(), "up", "-d"], cwd=shop.directory, capture_output=True, text=True, check=True
    )
    assert "Recreat" not in said.stderr  # Compose takes it for its own
    assert shop.convert(shop.files, "r2").details["done"] == [shop.files]

    undone = convert.undo_last(shop.name, shop.means("r3"), shop.stacks())

    plain = api.inspect_volume(shop.files)
    assert not plain["Options"]
    assert plain["Labels"] == before["Labels"]
    assert (Path(plain["Mountpoint"]) / "f").read_text() == "before"
    assert is_written(Path(plain["Mountpoint"]))
    assert undone.details["left"] == [str(shop.target(shop.files))]
    with pytest.raises(docker.errors.NotFound):
        api.inspect_volume(shop.kept)


@pytest.mark.parametrize("booted", [False, True], ids=["", "and the host boots"])
@pytest.mark.parametrize("point", ["convert-volumes", "convert-freed", "convert-poured", "convert-removed"])
def test_a_kill_leaves_a_volume_with_what_it_held_or_the_new_one(
    with_volume: ShopWithVolume, api: Any, point: str, booted: bool
) -> None:
    """A host that boots starts the stack before anybody looks, on the volume that there is then, or on a new one."""
    shop = with_volume
    shop.up(api)
    (shop.place / "f").write_text("before")
    died = shop.killed_at(point, "files")
    assert died.returncode == -9, died.stderr
    is_away = point in ("convert-poured", "convert-removed")
    if booted:
        compose.up(shop.directory)
        (shop.place / "order").write_text("since")
        assert (shop.place / "f").exists() is not is_away
    recover(shop)
    assert shop.running() == ["web"]
    assert bool(api.inspect_volume(shop.files)["Options"]) is is_away
    assert (shop.place / "f").read_text() == "before"
    assert is_written(shop.place)
    if booted:
        written = shop.meanwhile if is_away else shop.files
        assert (Path(api.inspect_volume(written)["Mountpoint"]) / "order").read_text() == "since"
    again = shop.convert("files", "r2")
    assert (again.details["done"] == [shop.files]) is is_away
    assert shop.place == shop.target(shop.files)
    assert (shop.place / "f").read_text() == "before"
    assert (shop.place / "order").exists() is (booted and not is_away)
    assert os.listxattr(shop.place) == []


@pytest.mark.parametrize("booted", [False, True], ids=["", "and the host boots"])
@pytest.mark.parametrize("point", ["convert-volumes", "convert-freed", "convert-removed"])
def test_a_kill_on_the_way_back_leaves_the_new_volume_or_the_one_with_what_it_held(
    with_volume: ShopWithVolume, api: Any, point: str, booted: bool
) -> None:
    shop = with_volume
    shop.up(api)
    (shop.place / "f").write_text("before")
    shop.convert("files")
    (shop.place / "f").write_text("after")
    died = shop.killed_at(point, "undo")
    assert died.returncode == -9, died.stderr
    if booted:
        compose.up(shop.directory)
        (shop.place / "order").write_text("since")
    recover(shop)
    assert shop.running() == ["web"]
    is_back = point == "convert-removed"
    assert (shop.place / "f").read_text() == ("before" if is_back else "after")
    assert is_written(shop.place)
    if booted:
        written = Path(api.inspect_volume(shop.meanwhile)["Mountpoint"]) if is_back else shop.place
        assert (written / "order").read_text() == "since"
    if not is_back:
        convert.undo_last(shop.name, shop.means("r3"), shop.stacks())
    assert (shop.place / "f").read_text() == "before"
    with pytest.raises(docker.errors.NotFound):
        api.inspect_volume(shop.kept)


def test_volumes_that_are_not_the_stacks_own_stay(with_volume: ShopWithVolume, api: Any) -> None:
    shop = with_volume
    with pytest.raises(RefusedError, match="start the stack once"):
        shop.convert("files")
    shop.up(api)
    other = api.create_container(
        shop.image, command=["sleep", "1"], host_config=api.create_host_config(binds=[f"{shop.files}:/x"])
    )["Id"]
    try:
        with pytest.raises(RefusedError, match="not of this stack, has it"):
            shop.convert("files")
    finally:
        api.remove_container(other, force=True, v=True)
    assert shop.running() == ["web"]


SEVERAL = """
services:
  web:
    image: {image}
    command: [sh, -c, "while sleep 0.1; do echo written >> /files/log; done"]
    stop_signal: SIGKILL
    network_mode: none
    volumes: ["files:/files", "/unnamed"]
  seed:
    image: {image}
    command: [sh, -c, "echo seeded >> /files/seed; echo seeded >> /unnamed/seed"]
    network_mode: none
    volumes: ["files:/files", "/unnamed"]
volumes:
  files: {{}}
"""


OUTER = """
services:
  web:
    image: {image}
    command: [sh, -c, "while sleep 0.1; do echo written >> /files/log; done"]
    stop_signal: SIGKILL
    networks: [outer]
    volumes: ["files:/files"]
networks:
  outer: {{external: true, name: {network}}}
volumes:
  files: {{}}
"""


def inside(shop: Shop, service: str) -> dict[str, Path]:
    """Where the anonymous volumes of a service's container are, by where it has them."""
    (found,) = [one for one in Docker(DOCKER_HOST).containers(shop.name) if one.service == service]
    return {mount.target: Path(mount.source) for mount in found.mounts if len(mount.name) == 64}


@pytest.mark.parametrize(
    ("point", "booted"), [("", False), ("convert-freed", False), ("convert-removed", False), ("convert-poured", True)]
)
def test_anonymous_volumes_and_containers_that_have_ended_are_there_afterwards(
    with_volume: ShopWithVolume, api: Any, point: str, booted: bool
) -> None:
    """The volume can go only with the containers that have it; Compose makes each of them again, with what it had."""
    shop = with_volume
    shop.host.stack(shop.name, SEVERAL.format(image=shop.image))
    shop.up(api)
    assert is_written(shop.place)
    for target in ("/unnamed", "/asked-for"):
        (inside(shop, "web")[target] / "upload").write_text("precious")
    before = {service: inside(shop, service) for service in ("web", "seed")}
    planned = shop.convert("files", dry_run=True).details["remade"]
    assert {one["container"]: one["started"] for one in planned} == {
        f"{shop.name}-web-1": True,
        f"{shop.name}-seed-1": False,
    }

    if point:
        assert shop.killed_at(point, "files").returncode == -9
        if booted:
            compose.up(shop.directory)
        recover(shop)
        shop.convert("files", "r2")
    else:
        shop.convert("files")

    assert shop.place == shop.target(shop.files)
    assert {service: inside(shop, service) for service in ("web", "seed")} == before
    assert (inside(shop, "web")["/asked-for"] / "upload").read_text() == "precious"
    states = {one.service: one.state for one in Docker(DOCKER_HOST).containers(shop.name)}
    assert states == {"web": "running", "seed": "created"}
    assert (shop.place / "seed").read_text() == "seeded\n"  # it did not run again
    named = {one["Name"] for one in api.volumes()["Volumes"] if one["Name"].startswith(shop.files)}
    assert named == {shop.files, shop.kept, *([shop.meanwhile] if booted else [])}

    convert.undo_last(shop.name, shop.means("r3"), shop.stacks())
    assert {service: inside(shop, service) for service in ("web", "seed")} == before
    assert shop.running() == ["web"]


def test_what_compose_cannot_start_at_once_after_a_kill_is_started_all_the_same(
    with_volume: ShopWithVolume, api: Any
) -> None:
    """Docker may yet be at what the killed one has asked it for, and in the way."""
    shop = with_volume
    shop.host.stack(shop.name, OUTER.format(image=shop.image, network=shop.name))
    api.create_network(shop.name)
    shop.up(api)
    assert shop.killed_at("convert-removed", "files").returncode == -9
    api.remove_network(shop.name)
    timer = threading.Timer(2.5, lambda: api.create_network(shop.name))
    timer.start()
    try:
        recover(shop)
        timer.join()
        assert shop.running() == ["web"]
        assert is_written(shop.target(shop.files))
    finally:
        timer.join()
        shop.remove(api)
        api.remove_network(shop.name)


ENDED = """
services:
  web:
    image: {image}
    command: [sh, -c, "while sleep 0.1; do echo written >> /files/log; done"]
    stop_signal: SIGKILL
    network_mode: none
    volumes: ["files:/files"]
  seed:
    image: {image}
    command: [sh, -c, "echo seeded >> /files/seed"]
    networks: [outer]
    volumes: ["files:/files", "/unnamed"]
networks:
  outer: {{external: true, name: {network}}}
volumes:
  files: {{}}
"""


def test_what_compose_cannot_make_again_is_told_and_made_as_soon_as_it_can(
    with_volume: ShopWithVolume, api: Any
) -> None:
    """It had ended, so that nobody would miss it."""
    shop = with_volume
    shop.host.stack(shop.name, ENDED.format(image=shop.image, network=shop.name))
    network = api.create_network(shop.name, internal=True)["Id"]
    shop.up(api)
    api.wait(f"{shop.name}-seed-1", timeout=20)
    before = inside(shop, "seed")
    api.remove_network(network)
    try:
        result = shop.convert("files")
        assert result.outcome is Outcome.FAILED
        assert f"docker compose up --no-start seed` in {shop.directory}" in result.stacks[0].reasons[0]
        assert shop.running() == ["web"]
        assert shop.place == shop.target(shop.files)
        undo = Undo(shop.host.settings.state_dir / "undo", Docker(DOCKER_HOST))
        assert "could not take back" in undo.take_back_open()[0]
        network = api.create_network(shop.name, internal=True)["Id"]
        recover(shop)
        states = {one.service: one.state for one in Docker(DOCKER_HOST).containers(shop.name)}
        assert states == {"web": "running", "seed": "created"}
        assert inside(shop, "seed") == before
    finally:
        shop.remove(api)
        with suppress(docker.errors.NotFound):
            api.remove_network(network)


def test_a_container_whose_service_is_no_more_is_not_tried_for_ever(shop: Shop) -> None:
    undo = Undo(shop.host.settings.state_dir / "undo", Docker(DOCKER_HOST))
    with undo.promised("volumes are exchanged", [Step("create", str(shop.directory), "gone")]):
        pass
    assert undo.open_count() == 0


def test_what_ran_and_cannot_be_started_again_is_told(with_volume: ShopWithVolume, api: Any) -> None:
    """Somebody takes its port while it stands still."""
    shop = with_volume
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = shop.directory / "compose.yaml"
    file.write_text(file.read_text().replace("network_mode: none", f"ports: ['127.0.0.1:{port}:80']"))
    shop.up(api)
    with socket.socket() as taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        def take() -> None:
            for _ in range(2000):
                with suppress(OSError):
                    taker.bind(("127.0.0.1", port))
                    taker.listen()
                    return
                time.sleep(0.005)

        thread = threading.Thread(target=take)
        thread.start()
        try:
            result = shop.convert("files")
        finally:
            thread.join()
    try:
        assert result.outcome is Outcome.WARN
        assert result.stacks[0].reasons == (
            f"web ran, and does not now: `docker compose up -d web` in {shop.directory}",
        )
        assert shop.place == shop.target(shop.files)
    finally:
        compose.down(shop.directory)


def test_a_container_that_nobody_would_make_again_is_in_the_way(with_volume: ShopWithVolume, api: Any) -> None:
    shop = with_volume
    shop.up(api)
    run = [*compose.command(), "run", "--name", f"{shop.name}-by-hand", "web", "true"]
    subprocess.run(run, cwd=shop.directory, check=True, capture_output=True)
    with pytest.raises(RefusedError, match=r"by-hand has it, and would be lost.*docker rm"):
        shop.convert("files")
    api.remove_container(f"{shop.name}-by-hand", v=True)
    shop.convert("files")
    subprocess.run(run, cwd=shop.directory, check=True, capture_output=True)
    with pytest.raises(RefusedError, match="would be lost"):
        convert.undo_last(shop.name, shop.means("r2"), shop.stacks())
    assert shop.running() == ["web"]
    assert shop.place == shop.target(shop.files)
    api.remove_container(f"{shop.name}-by-hand", v=True)


@pytest.fixture
def shop(tmp_path: Path, volume: Path, api: Any, image: str, needs_compose: None) -> Iterator[Shop]:
    made = Shop(tmp_path, volume, image)
    yield made
    with suppress(docker.errors.NotFound, docker.errors.NullResource):
        api.remove_container(made.container, force=True, v=True)
    made.host.store.close()


def test_a_running_stack_goes_on_on_the_volume_with_everything_it_had(shop: Shop, api: Any) -> None:
    Life(shop.library, 7).go_on(80)
    before = account(shop.library)
    shop.up(api)
    result = shop.convert()
    assert result.outcome is Outcome.OK
    for tree, place in (("data", shop.data), ("library", shop.library)):
        assert place.readlink() == shop.target(tree)
        assert filesystem.is_subvolume(shop.target(tree))
    assert account(shop.target("library")) == before
    assert api.inspect_container(shop.container)["State"]["Running"]
    log = shop.target("data") / "log"
    size = log.stat().st_size if log.exists() else 0  # it may have been moved before it wrote a first line
    deadline = datetime.now(UTC) + timedelta(seconds=20)
    while (log.stat().st_size if log.exists() else 0) == size:
        assert datetime.now(UTC) < deadline, "nothing is written to the new place"
    assert {one["tree"] for one in result.details["proofs"]} == {"data", "library"}
    assert result.stacks[0].standstill_seconds is not None

    again = shop.convert(run="r2")
    assert "anonymous volume" in again.details["staying"][0]["why"]  # the one that the image asks for
    assert again.details["moves"] == []
    assert sorted(again.details["done"]) == ["data", "library"]


def test_the_way_back(shop: Shop, api: Any) -> None:
    shop.up(api)
    shop.convert("library")
    (shop.library / "new").write_text("since")
    result = convert.undo_last(shop.name, shop.means("r2"), shop.stacks())
    assert not shop.library.is_symlink()
    assert sorted(os.listdir(shop.library)) == ["f"]
    assert (shop.target("library") / "new").read_text() == "since"
    assert result.details["left"] == [str(shop.target("library"))]
    assert api.inspect_container(shop.container)["State"]["Running"]
    with pytest.raises(RefusedError, match="is there already"):
        shop.convert("library", "r3")


def test_what_was_there_goes_after_a_week(shop: Shop) -> None:
    shop.convert("library")
    assert len(kept.expire(shop.host.settings.state_dir / "kept", NOW + timedelta(days=8)).gone) == 1
    assert sorted(os.listdir(shop.directory)) == ["compose.yaml", "data", "library"]
    assert (shop.library / "f").read_text() == "before"


def test_a_dry_run_says_what_would_move_and_changes_nothing(shop: Shop) -> None:
    result = shop.convert(dry_run=True)
    assert [one["to"] for one in result.details["moves"]] == [str(shop.target("data")), str(shop.target("library"))]
    assert not shop.data.is_symlink()
    assert not (shop.volume / shop.name).exists()


def test_what_cannot_be_done_safely_is_refused_with_the_reason(shop: Shop, api: Any, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no tree nothing"):
        shop.convert("nothing")
    shop.target("library").mkdir(parents=True)
    with pytest.raises(RefusedError, match="is there already"):
        shop.convert("library")
    shop.target("library").rmdir()
    other = shop.host.stack("other", f"services: {{web: {{image: x, volumes: ['{shop.library}:/x']}}}}\n")
    with pytest.raises(RefusedError, match="stack other uses it"):
        shop.convert("library")
    (other / "compose.yaml").unlink()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", shop.library], check=True)
    try:
        with pytest.raises(RefusedError, match="mount point"):
            shop.convert("library")
    finally:
        subprocess.run(["umount", shop.library], check=True)
    (tmp_path / "elsewhere").mkdir()
    shop.library.rename(tmp_path / "elsewhere/library")
    shop.library.symlink_to(tmp_path / "elsewhere/library")
    with pytest.raises(RefusedError, match="symbolic link"):
        shop.convert("library")
    with pytest.raises(RefusedError, match="no Docker Engine"):
        convert.run(Request(shop.name), replace(shop.means(), docker=None), shop.stacks())
    assert (shop.library / "f").read_text() == "before"
    assert not (shop.target("library")).exists()


def test_who_reads_all_of_the_host_is_not_in_the_way(shop: Shop) -> None:
    """As node-exporter and cAdvisor do. Who may write into what holds the tree is."""
    other = shop.host.stack("watch", "services: {web: {image: x, volumes: ['/:/host:ro']}}\n")
    assert shop.convert("library", dry_run=True).details["notes"] == []
    shop.host.stack("watch", f"services: {{web: {{image: x, volumes: ['{shop.directory}:/host:ro']}}}}\n")
    (note,) = shop.convert("library", dry_run=True).details["notes"]
    assert f"stack watch reads {shop.directory}" in note
    shop.host.stack("watch", f"services: {{web: {{image: x, volumes: ['{shop.library}/deep:/host:ro']}}}}\n")
    with pytest.raises(RefusedError, match="stack watch uses it"):
        shop.convert("library")
    shop.host.stack("watch", f"services: {{web: {{image: x, volumes: ['{shop.directory}:/host']}}}}\n")
    with pytest.raises(RefusedError, match="stack watch uses it"):
        shop.convert("library")
    (other / "compose.yaml").unlink()
    assert shop.convert("library").outcome is Outcome.OK


def test_the_room_is_that_for_all_trees_together(shop: Shop) -> None:
    free = filesystem.free_bytes(shop.volume)
    for place in (shop.data, shop.library):
        with (place / "large").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free * 6 // 10)
    planned = shop.convert(dry_run=True).details
    assert [one["tree"] for one in planned["moves"]] == ["data"]
    assert "of which other trees take" in planned["staying"][-1]["why"]


def test_a_killed_copy_is_gone_when_the_appliance_starts_again(shop: Shop, api: Any) -> None:
    shop.up(api)
    assert shop.killed_at("convert-proven").returncode == -9
    assert [name for name in os.listdir(shop.volume / shop.name) if name.startswith(".incoming-")]
    recover(shop)
    assert os.listdir(shop.volume / shop.name) == []


def test_a_volume_without_room_is_refused_before_anything_begins(shop: Shop) -> None:
    with (shop.library / "large").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 3 << 30)
    with pytest.raises(RefusedError, match="the volume has"):
        shop.convert("library")


CRASH = """
import sys, json
sys.path[:0] = json.loads(sys.argv[1])
from pathlib import Path
from dataclasses import replace
from test_convert import Shop
shop = Shop.__new__(Shop)
shop.name, shop.volume = sys.argv[2], Path(sys.argv[3])
from unit.hosts import SmallHost, DOCKER_HOST
root = Path(sys.argv[4])
host = SmallHost.__new__(SmallHost)
from stackward.config import Settings
host.root = root
host.settings = Settings(docker_root=root / "docker", backup_root=root / "backup", volume=shop.volume,
    state_dir=root / "state", config_dir=root / "etc", docker_host=DOCKER_HOST, crash_point=sys.argv[5],
    docker_volumes=Path("/var/lib/docker/volumes"))
host.store = host.opened()
shop.host = host
if sys.argv[6] == "undo":
    from stackward.jobs import convert
    convert.undo_last(shop.name, shop.means(), shop.stacks())
else:
    shop.convert(sys.argv[6] or None)
"""


@pytest.mark.parametrize("point", ["convert-proven", "convert-swapped", "convert-resumed"])
def test_a_kill_leaves_the_old_tree_or_the_new_and_the_stack_runs_again(shop: Shop, api: Any, point: str) -> None:
    shop.up(api)
    died = shop.killed_at(point)
    assert died.returncode == -9, died.stderr
    assert (shop.data / "f").read_text() == (shop.library / "f").read_text() == "before"
    assert shop.data.is_symlink() == (point != "convert-proven")
    recover(shop)
    assert api.inspect_container(shop.container)["State"]["Running"]
    assert shop.convert(run="r2").outcome is Outcome.OK
    for tree, place in (("data", shop.data), ("library", shop.library)):
        assert place.readlink() == shop.target(tree)
        assert (place / "f").read_text() == "before"
        assert os.listxattr(shop.target(tree)) == []
    kept.expire(shop.host.settings.state_dir / "kept", NOW + timedelta(days=8))
    assert sorted(os.listdir(shop.directory)) == ["compose.yaml", "data", "library"]
    assert sorted(os.listdir(shop.volume / shop.name)) == ["data", "library"]


def test_a_stack_that_a_host_booted_on_nothing_goes_on_on_what_comes_back(shop: Shop, api: Any, tmp_path: Path) -> None:
    """Between two renames the tree is away; whoever starts the stack then has Docker make an empty directory for it."""
    shop.up(api)
    undo, aside, left = shop.means().undo, tmp_path / "aside", shop.host.settings.state_dir / "undo"
    for number, steps in enumerate(
        (
            [Step("start", shop.container)],
            [Step("stop", shop.container), Step("rename", str(aside), str(shop.data))],
        )
    ):
        with undo.promised("a kill", steps, only_on_error=True):
            (record,) = [file for file in left.iterdir() if "left" not in file.name]
            (left / f"{number}-left.json").write_bytes(record.read_bytes())
    api.stop(shop.container)
    shop.data.rename(aside)
    api.start(shop.container)
    recover(shop)
    assert (shop.data / "f").read_text() == "before"
    assert is_written(shop.data)


def test_the_comparison_finds_every_difference(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    for name in ("a", "b", "c"):
        (one / name).write_text(name * 9)
    os.link(one / "a", one / "linked")
    (one / "sub").mkdir()

    def change_and_prove(change) -> None:
        subprocess.run(["rm", "-rf", other], check=True)
        subprocess.run(["cp", "-a", one, other], check=True)
        change()
        with tree_root.opened(one) as first, tree_root.opened(other) as second:
            sameness.prove(first, second)

    change_and_prove(lambda: None)
    (one / "sub/x").touch()
    stamp = (one / "b").stat().st_mtime_ns

    def same_size_and_time() -> None:
        (other / "b").write_text("B" * 9)
        os.utime(other / "b", ns=(stamp, stamp))

    def part_links() -> None:
        (other / "linked").unlink()
        subprocess.run(["cp", "-a", "--no-preserve=links", one / "linked", other / "linked"], check=True)

    for change in (
        same_size_and_time,
        part_links,
        (other / "c").unlink,
        (other / "d").touch,
        lambda: (other / "c").chmod(0o600),
        lambda: os.chown(other / "c", 1, 1),
        lambda: os.utime(other / "c", ns=(1, 1)),
        lambda: os.setxattr(other / "c", "user.x", b"1"),
        lambda: (other / "sub/x").rename(other / "sub/y"),
    ):
        with pytest.raises(StackwardError, match="not the same"):
            change_and_prove(change)


@pytest.mark.parametrize("flipped", ["data/d", "data"])
def test_a_container_that_flips_links_has_nothing_of_others_moved_copied_or_removed(
    shop: Shop, api: Any, tmp_path: Path, flipped: str
) -> None:
    """It goes on while the stack stands still, as one would that was overlooked."""
    names = [f"{number:03}" for number in range(100)]
    victim = make_victim(tmp_path / "victim/deep", names).parent
    make_victim(shop.data / "d/deep", names, "its own content....")
    if flipped != "data":  # else Docker itself follows the link when the container starts again, and it writes there
        shop.up(api)
    stacks = shop.stacks()
    before = account(victim)
    own = account(shop.data / "d")
    for turn in range(6):
        with (
            watched(victim / "deep") as opened,
            flipped_for_link(shop.directory / flipped, victim),
            suppress(StackwardError, OSError),
        ):
            convert.run(Request(shop.name, "data"), shop.means(f"run{turn}"), stacks)
        assert opened == []
        recover(shop)
        assert account(victim) == before
        assert leaks(shop.volume) == []
        assert account(shop.data / "d") == own
        if shop.data.is_symlink():  # it got through between two flips
            break


def test_what_took_the_place_of_the_tree_after_the_comparison_is_not_moved(
    shop: Shop, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.up(api)
    named = conversion.name

    def named_and_replaced(move: conversion.Move) -> None:
        named(move)
        if move.place == shop.data:
            shop.data.rename(shop.directory / "away")
            shop.data.mkdir()
            (shop.data / "other").write_text("other")

    monkeypatch.setattr(conversion, "name", named_and_replaced)
    with pytest.raises(StackwardError, match="was replaced by something else"):
        shop.convert("data")
    assert os.listdir(shop.data) == ["other"]
    assert not shop.target("data").exists()
