"""Discovery where containers are: real ones, with the labels that Compose gives them."""

import uuid
from contextlib import suppress
from pathlib import Path

import docker.errors
import pytest

from stackward.jobs import audit
from stackward.stacks import places
from stackward.steps.doctor import Facts, policies
from stackward.steps.sizes import Sizes
from stackward.tools.docker import Docker
from stackward.tools.filesystem import Mount
from unit.hosts import DOCKER_HOST, NOW, SmallHost

pytestmark = pytest.mark.usefixtures("needs_compose")


@pytest.fixture
def host(tmp_path):
    small = SmallHost(tmp_path / "host", docker_volumes=Path("/var/lib/docker/volumes"))
    yield small
    small.store.close()


@pytest.fixture
def name():
    return f"unit{uuid.uuid4().hex[:8]}"


@pytest.fixture
def start(api, image):
    """Start a container as Compose would have from `directory`."""
    made = []

    def started(project, directory, *, service="web", files=("compose.yaml",), binds=(), one_off="False", **more):
        labels = {
            "com.docker.compose.project": project,
            "com.docker.compose.service": service,
            "com.docker.compose.oneoff": one_off,
            "com.docker.compose.project.working_dir": str(directory),
            "com.docker.compose.project.config_files": ",".join(f"{directory}/{file}" for file in files),
            **more,
        }
        config = api.create_host_config(binds=list(binds))
        container = api.create_container(
            image, command=["sleep", "1000"], labels=labels, host_config=config, stop_signal="SIGKILL"
        )["Id"]
        made.append(container)
        api.start(container)
        return container

    yield started
    for container in made:
        with suppress(docker.errors.NotFound):
            api.remove_container(container, force=True, v=True)


@pytest.fixture
def discover(host):
    return lambda: host.discover(Docker(DOCKER_HOST))


def test_a_stacks_containers_are_its_projects(host, name, start, discover):
    directory = host.stack(name, "services: {web: {image: nginx}}")
    one, off = start(name, directory), start(name, directory, one_off="True")
    stack = discover().stack(name)
    assert {c.id for c in stack.containers} == {one, off}
    assert [c.id for c in stack.running] == [one]


def test_another_project_name_on_the_command_line_is_the_stacks_project(host, name, start, discover):
    directory = host.stack("shop", "services: {web: {image: nginx}}")
    start(name, directory)
    start(f"{name}-staging", directory)
    start(f"{name}-drill", directory.parent.parent / "state")
    found = discover()
    assert found.stack("shop").project == name
    assert [c.project for c in found.stack("shop").containers] == [name]
    assert name not in {project.project for project in found.outside}
    assert not {f"{name}-staging", f"{name}-drill"} & {project.project for project in found.outside}


def test_projects_that_run_elsewhere_are_told_with_the_reason(host, name, start, discover, tmp_path):
    deeper = host.settings.docker_root / "group" / name
    deeper.mkdir(parents=True)
    start(name, tmp_path)
    start(f"{name}b", deeper)
    outside = {project.project: project for project in discover().outside}
    assert (outside[name].reason, outside[name].running) == ("not under DOCKER_ROOT", 1)
    assert outside[f"{name}b"].reason == "not directly under DOCKER_ROOT"


@pytest.mark.parametrize(("said", "decided"), [("false", True), ("Off", True), ("true", False), ("perhaps", False)])
def test_a_project_elsewhere_that_is_switched_off_is_a_decision(host, name, start, discover, tmp_path, said, decided):
    start(name, tmp_path, **{"stackward.backup": said})
    start(name, tmp_path, service="db")
    found = discover()
    [project] = [project for project in found.outside if project.project == name]
    assert project.switched_off == decided
    assert ("label" in project.reason) == decided

    facts = Facts(host.settings, None, found, host.store, Sizes(host.root / "sizes", NOW), (), None, NOW)
    assert any(f"the project {name} " in finding.text for finding in policies.look(facts)) != decided
    told = [finding.text for finding in audit.find(found, audit.Facts(), NOW)]
    assert any(f"project {name} " in text for text in told) != decided


def test_a_project_of_the_same_name_elsewhere_is_not_the_stacks(host, name, start, discover, tmp_path):
    host.stack(name, "services: {web: {image: nginx}}")
    (tmp_path / "compose.yaml").write_text("services: {web: {image: nginx}}")
    start(name, tmp_path)
    found = discover()
    assert found.stack(name).containers == ()
    assert name in {project.project for project in found.outside}


def test_the_files_that_containers_were_made_from_count_and_are_remembered(api, host, name, start, discover):
    directory = host.settings.docker_root / name
    directory.mkdir()
    (directory / "prod.yaml").write_text("services: {web: {image: from-prod}}")
    assert discover().stack(name) is None
    container = start(name, directory, files=["prod.yaml"])
    assert discover().stack(name).services[0].image == "from-prod"
    api.stop(container, timeout=0)
    assert discover().stack(name).services[0].image == "from-prod"
    assert host.discover().stack(name).services[0].image == "from-prod"


def test_an_override_that_came_later_counts_though_containers_do_not_know_it(host, name, start, discover):
    directory = host.stack(name, "services: {web: {image: nginx}}")
    start(name, directory)
    (directory / "compose.override.yaml").write_text("x-stackward: {backup: true}")
    assert discover().stack(name).opted_in


def test_anonymous_volumes_are_trees_that_keep_their_name(api, host, name, start, discover):
    directory = host.stack(name, "services: {web: {image: nginx}}")
    first = start(name, directory)
    (before,) = discover().stack(name).trees
    assert (before.mount_name, before.covered, len(before.volume)) == ("web+asked-for", True, 64)
    api.remove_container(first, force=True, v=True)
    start(name, directory)
    (after,) = discover().stack(name).trees
    assert after.mount_name == before.mount_name
    assert after.volume != before.volume


def test_a_named_volume_lies_where_docker_says(api, host, name, start, discover):
    directory = host.stack(
        name, "{services: {web: {image: nginx, volumes: ['store:/asked-for']}}, volumes: {store: {}}}"
    )
    start(name, directory, binds=[f"{name}_store:/asked-for"])
    try:
        (tree,) = discover().stack(name).trees
        assert (tree.volume, tree.mount_name, tree.services) == (f"{name}_store", f"{name}_store", ("web",))
        assert str(tree.source) == api.inspect_volume(f"{name}_store")["Mountpoint"]
    finally:
        api.remove_container(discover().stack(name).containers[0].id, force=True, v=True)
        api.remove_volume(f"{name}_store")


class TestInsideTheAppliance:
    """What is a host path in here is only what is mounted at the same path."""

    @pytest.fixture
    def inside(self, host):
        return places.Host(host.settings, places.filesystem.mounts(), visible=(Path("/opt/docker"), Path("/srv")))

    def test_a_path_that_is_not_mounted_is_told_with_what_to_mount(self, inside):
        assert "`/data/films:/data/films`" in inside.judge(Path("/data/films"), Path("/data/films")).reason
        volume = Path("/data/docker/volumes/x/_data")
        assert "`/data/docker/volumes:/data/docker/volumes`" in inside.judge(volume, volume).reason

    def test_a_path_that_is_mounted_is_fine_though_it_is_not_there_now(self, inside):
        assert inside.judge(Path("/srv/none"), Path("/srv/none")).reason == ""

    def test_remote_file_systems_are_told(self, host):
        table = (
            Mount(Path("/"), "8:1", "/", "ext4", "/dev/sda1", frozenset({"rw"})),
            Mount(Path("/srv/nas"), "0:50", "/", "nfs4", "nas:/x", frozenset({"rw"})),
        )
        place = places.Host(host.settings, table).judge(Path("/srv/nas/films"), Path("/srv/nas/films"))
        assert "nfs4" in place.reason
        assert place.remote

    def test_our_own_container_is_told_by_what_docker_mounts_into_it(self):
        own = "ab" * 32
        root = f"/var/lib/docker/containers/{own}/hostname"
        table = (Mount(Path("/etc/hostname"), "8:1", root, "ext4", "/dev/sda1", frozenset()),)
        assert places.own_container_id(table) == own
        assert places.own_container_id(()) is None
