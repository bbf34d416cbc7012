import hashlib
import io
import os
import time
import uuid
from contextlib import suppress
from pathlib import Path

import docker.errors
import pytest

from stackward.tools.docker import Docker, DockerError, DockerUnavailableError, HookTimeout, NotFoundError
from unit.hosts import DOCKER_HOST


@pytest.fixture
def project():
    return f"stackward-unit-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def container(api, image, project):
    labels = {"com.docker.compose.project": project, "com.docker.compose.service": "web"}
    made = api.create_container(image, command=["sleep", "1000"], labels=labels, stop_signal="SIGKILL")["Id"]
    api.start(made)
    yield made
    with suppress(docker.errors.NotFound):
        api.remove_container(made, force=True, v=True)


@pytest.fixture
def engine():
    return Docker(DOCKER_HOST, owner=uuid.uuid4().hex)


def only_the_container_itself_runs(api, container):
    """Soon, that is: when the kernel has done away with what was killed, and the killers have left."""
    for _ in range(50):
        found = [row[-1] for row in api.top(container)["Processes"]]
        if found == ["sleep 1000"]:
            return True
        time.sleep(0.1)
    return False


def test_containers_of_a_project_in_any_state(engine, container, project):
    engine.stop(container, 1)
    (found,) = engine.containers(project)
    assert (found.id, found.service, found.state, found.one_off) == (container, "web", "exited", False)
    assert [mount.target for mount in found.mounts] == ["/asked-for"]
    assert engine.containers("no-such-project") == []


class TestExec:
    def test_exit_code_and_both_outputs(self, engine, container):
        result = engine.exec(container, ["sh", "-c", "echo out; echo err >&2; exit 3"], timeout_seconds=10)
        assert result.exit_code == 3
        assert sorted(result.output_tail.split()) == ["err", "out"]

    def test_environment(self, engine, container):
        result = engine.exec(container, ["sh", "-c", "echo $A"], timeout_seconds=10, environment={"A": "a b"})
        assert result.output_tail == "a b\n"

    def test_a_lot_of_output_leaves_its_end(self, engine, container):
        result = engine.exec(container, ["sh", "-c", "yes | head -c 5000000; echo the end"], timeout_seconds=20)
        assert len(result.output_tail) == 4096
        assert result.output_tail.endswith("the end\n")

    def test_a_hanging_command_is_killed_with_its_children(self, api, engine, container):
        began = time.monotonic()
        with pytest.raises(HookTimeout, match="was killed"):
            engine.exec(container, ["sh", "-c", "sleep 501 & sleep 502"], timeout_seconds=1)
        assert time.monotonic() - began < 60
        assert only_the_container_itself_runs(api, container)

    def test_a_hanging_command_of_another_user_is_killed(self, api, engine, container):
        with pytest.raises(HookTimeout, match="was killed"):
            engine.exec(container, ["sleep", "505"], timeout_seconds=1, user="1000")
        assert only_the_container_itself_runs(api, container)

    def test_one_that_writes_and_writes_is_killed_too(self, api, engine, container):
        with pytest.raises(HookTimeout):
            engine.exec(container, ["yes"], timeout_seconds=1)
        assert only_the_container_itself_runs(api, container)

    def test_a_command_that_is_not_there(self, engine, container):
        assert engine.exec(container, ["no-such-command"], timeout_seconds=10).exit_code in (126, 127)

    def test_a_container_that_does_not_run(self, engine, container):
        engine.stop(container, 1)
        with pytest.raises(DockerError, match="not running"):
            engine.exec(container, ["true"], timeout_seconds=10)

    def test_binary_output_into_a_file(self, engine, container):
        target = io.BytesIO()
        script = "head -c 3000000 /dev/urandom > /tmp/x; cat /tmp/x; sha256sum /tmp/x >&2"
        result = engine.exec_to_file(container, ["sh", "-c", script], target)
        assert result.exit_code == 0
        assert result.output_tail.split()[0] == hashlib.sha256(target.getvalue()).hexdigest()

    def test_a_dump_that_stalls_is_killed_and_one_that_goes_on_is_not(self, api, engine, container):
        slow = "for i in 1 2 3; do echo $i; sleep 0.7; done"
        assert engine.exec_to_file(container, ["sh", "-c", slow], io.BytesIO(), stall_seconds=1.5).exit_code == 0
        with pytest.raises(HookTimeout):
            engine.exec_to_file(container, ["sh", "-c", "echo a; sleep 503"], io.BytesIO(), stall_seconds=1)
        assert only_the_container_itself_runs(api, container)

    def test_when_the_output_cannot_be_written_the_command_is_ended(self, api, engine, container):
        class Full(io.BytesIO):
            def write(self, _data):
                raise OSError(28, "No space left on device")

        with pytest.raises(OSError, match="No space"):
            engine.exec_to_file(container, ["sh", "-c", "echo x; sleep 504"], Full())
        assert only_the_container_itself_runs(api, container)


class TestStandingStill:
    def test_what_is_asked_twice_is_done_once(self, engine, container):
        for act, state in ((engine.pause, "paused"), (engine.unpause, "running")):
            act(container)
            act(container)
            assert engine.container(container).state == state
        for _ in range(2):
            engine.stop(container, 1)
            assert engine.container(container).state == "exited"
        for _ in range(2):
            engine.start(container)
            assert engine.container(container).state == "running"

    def test_starting_a_paused_one_makes_it_run(self, engine, container):
        engine.pause(container)
        engine.start(container)
        assert engine.container(container).state == "running"

    def test_a_paused_one_can_be_stopped(self, engine, container):
        engine.pause(container)
        engine.stop(container, 1)
        assert engine.container(container).state == "exited"

    def test_one_that_does_not_run_cannot_be_paused(self, engine, container):
        engine.stop(container, 1)
        with pytest.raises(DockerError, match="not running"):
            engine.pause(container)

    def test_one_that_is_gone_matters_only_where_it_should_run(self, api, engine, container):
        api.remove_container(container, force=True, v=True)
        engine.stop(container)
        engine.unpause(container)
        assert engine.container(container) is None
        for act in (engine.start, engine.pause):
            with pytest.raises(NotFoundError):
                act(container)


@pytest.mark.skipif(os.geteuid() != 0, reason="a volume's directory is root's")
class TestHoldingVolumes:
    @pytest.fixture
    def volume(self, api):
        name = f"stackward-unit-{uuid.uuid4().hex[:8]}"
        api.create_volume(name, "local", {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"})
        yield name
        api.remove_volume(name, force=True)

    def test_it_is_mounted_while_held_and_nothing_is_left(self, engine, image, volume):
        with engine.holding_volume(volume, image) as held:
            assert held.options["type"] == "tmpfs"
            assert str(held.mountpoint) in Path("/proc/self/mountinfo").read_text()
            (helper,) = [c for c in engine.containers() if volume in {mount.name for mount in c.mounts}]
        assert str(held.mountpoint) not in Path("/proc/self/mountinfo").read_text()
        assert engine.container(helper.id) is None
        assert len(helper.mounts) == 2
        assert [mount.name for mount in helper.mounts if engine.volume(mount.name)] == [volume]

    def test_what_a_killed_run_left_can_be_removed(self, engine, image, volume):
        holding = engine.holding_volume(volume, image)
        holding.__enter__()
        assert engine.remove_helpers() == 1
        assert engine.remove_helpers() == 0

    def test_a_volume_that_is_not_there(self, engine, image):
        with pytest.raises(NotFoundError), engine.holding_volume("stackward-unit-none", image):
            pass
        assert engine.volume("stackward-unit-none") is None


def test_an_image_and_one_that_is_gone(engine, image):
    assert engine.image_info(image)["tags"] == [image]
    assert engine.image_info("sha256:" + "0" * 64) is None


@pytest.mark.parametrize("host", ["unix:///nowhere/docker.sock", "tcp://127.0.0.1:1"])
def test_no_engine(host):
    with pytest.raises(DockerUnavailableError, match="no Docker Engine answers"):
        Docker(host).ping()


def test_an_engine_that_comes_back_is_used_again(api, engine, tmp_path):
    link = tmp_path / "docker.sock"
    late = Docker(f"unix://{link}")
    with pytest.raises(DockerUnavailableError):
        late.ping()
    link.symlink_to("/var/run/docker.sock")
    late.ping()
