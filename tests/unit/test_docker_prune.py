import uuid
from contextlib import suppress
from pathlib import Path

import docker.errors
import pytest

from stackward.core.index import Index, StackEntry
from stackward.core.model import Outcome, Stack
from stackward.core.progress import Silent
from stackward.jobs import docker_prune
from stackward.jobs.docker_prune import Item, Needs
from stackward.steps.catalog import Artifact
from stackward.tools.docker import Docker, DockerError, DockerUnavailableError
from stackward.tools.docker_leftovers import Leftover
from unit.hosts import DOCKER_HOST

NEEDS = Needs(
    images=frozenset({"sha256:kept", "db@sha256:kept"}),
    projects=frozenset({"shop", "shop-staging"}),
    networks=frozenset({"proxy"}),
    docker_root=Path("/opt/docker"),
)


def leftover(**changes):
    return Leftover(**{"id": "x", "name": "x", **changes})


class TestPlan:
    @pytest.mark.parametrize("project", ["shop", "shop-staging"])
    def test_what_belongs_to_a_stack_stays_though_it_is_stopped(self, project):
        assert docker_prune.why_keep_container(leftover(project=project), NEEDS)
        assert docker_prune.why_keep_network(leftover(project=project), NEEDS)

    def test_what_no_compose_project_made_goes(self):
        assert docker_prune.why_keep_container(leftover(), NEEDS) == ""
        assert docker_prune.why_keep_network(leftover(), NEEDS) == ""

    def test_a_project_elsewhere_is_not_ours_to_judge(self):
        assert docker_prune.why_keep_container(leftover(project="game", directory="/home/me/game"), NEEDS)
        assert docker_prune.why_keep_container(leftover(project="game"), NEEDS)

    def test_a_project_whose_directory_under_docker_root_is_gone_goes(self, tmp_path):
        needs = Needs(frozenset(), frozenset(), frozenset(), tmp_path)
        gone = leftover(project="old", directory=str(tmp_path / "old"))
        assert docker_prune.why_keep_container(gone, needs) == ""
        (tmp_path / "old").mkdir()
        assert docker_prune.why_keep_container(gone, needs)

    def test_a_network_that_a_stack_calls_external_stays(self):
        assert docker_prune.why_keep_network(leftover(name="proxy"), NEEDS)

    @pytest.mark.parametrize(
        "image",
        [
            leftover(id="sha256:kept"),
            leftover(digests=("mirror/db@sha256:other", "db@sha256:kept")),
            leftover(tags=("stackward-rollback/shop-db:20261121",)),
        ],
    )
    def test_an_image_that_a_way_back_needs_stays(self, image):
        assert docker_prune.why_keep_image(image, NEEDS)

    def test_an_image_that_nobody_needs_goes(self):
        assert docker_prune.why_keep_image(leftover(digests=("db@sha256:old",), tags=("db:1",)), NEEDS) == ""

    def test_the_newest_backup_of_each_stack_counts(self):
        def backup(name, **images):
            entries = {
                stack: StackEntry(stack, stack, "", "", (), images={"db": {"id": found, "digests": [f"db@{found}"]}})
                for stack, found in images.items()
            }
            return Artifact(None, Path(name), None, index=Index("", "", "", entries))

        backups = [backup("new", shop="sha256:2"), backup("old", shop="sha256:1", wiki="sha256:3")]
        stacks = [Stack("shop", Path("/opt/docker/shop"), "shop", external_networks=("proxy",))]
        found = docker_prune.needs(stacks, backups, Path("/opt/docker"))
        assert found.images == {"sha256:2", "db@sha256:2", "sha256:3", "db@sha256:3"}
        assert found.projects == {"shop", "shop-staging"}
        assert found.networks == {"proxy"}


class Refusing(Docker):
    """An engine whose refusals are those of a real one, at a moment that cannot be met with a real one."""

    def __init__(self, error):
        super().__init__("unix:///nonexistent")
        self._error = error

    def images_size_bytes(self):
        return 100

    def remove_container(self, _container):
        raise self._error

    def remove_network(self, _network):
        pass

    def prune_build_cache(self):
        return 7


PLAN = [Item("container", leftover(), keep=False, reason=""), Item("network", leftover(), keep=False, reason="")]


def test_what_docker_refuses_stays_and_the_rest_goes():
    result = docker_prune.act(Refusing(DockerError("it runs again")), PLAN, Silent())
    assert result.outcome is Outcome.WARN
    assert result.reasons == ("removed 1 network; freed 7 B", "it runs again")


def test_an_engine_that_goes_away_in_the_middle_of_it_is_a_failure_that_says_what_was_done():
    result = docker_prune.act(Refusing(DockerUnavailableError("no Docker Engine answers")), PLAN[::-1], Silent())
    assert result.outcome is Outcome.FAILED
    assert result.reasons == ("no Docker Engine answers, in the middle of it", "removed 1 network; freed 0 B")


@pytest.mark.usefixtures("api")
class TestEngine:
    """What a real engine lists, and lets go of; nothing else of this machine's is touched."""

    @pytest.fixture
    def engine(self):
        return Docker(DOCKER_HOST)

    @pytest.fixture
    def name(self):
        return f"stackward-unit-{uuid.uuid4().hex[:8]}"

    def test_a_stopped_container_and_a_running_one(self, api, engine, image, name):
        labels = {"com.docker.compose.project": "p", "com.docker.compose.project.working_dir": "/d"}
        made = api.create_container(image, command=["sleep", "100"], labels=labels, name=name, stop_signal="SIGKILL")
        try:
            (found,) = [one for one in engine.stopped_containers() if one.id == made["Id"]]
            assert (found.name, found.project, found.directory) == (name, "p", "/d")
            api.start(made)
            assert made["Id"] not in {one.id for one in engine.stopped_containers()}
            with pytest.raises(DockerError, match="remove a container"):
                engine.remove_container(found)
            api.kill(made)
            volumes = [mount["Name"] for mount in api.inspect_container(made)["Mounts"]]
            engine.remove_container(found)
            assert engine.container(made["Id"]) is None
            for volume in volumes:
                api.remove_volume(volume)  # it may hold data: it stays, and is for people
        finally:
            with suppress(docker.errors.NotFound):
                api.remove_container(made, force=True, v=True)

    def test_our_own_helpers_are_no_leftovers(self, api, engine, image):
        made = api.create_container(image, command=["true"], labels={"stackward.helper": "x"})
        try:
            assert made["Id"] not in {one.id for one in engine.stopped_containers()}
        finally:
            api.remove_container(made, v=True)

    def test_the_network_of_a_stopped_container_is_in_use(self, api, engine, image, name):
        network = api.create_network(name)["Id"]
        config = api.create_networking_config({name: api.create_endpoint_config()})
        made = api.create_container(image, command=["true"], networking_config=config)
        try:
            assert network not in {one.id for one in engine.unused_networks()}
            api.remove_container(made, v=True)
            (found,) = [one for one in engine.unused_networks() if one.id == network]
            engine.remove_network(found)
            assert api.networks(ids=[network]) == []
        finally:
            with suppress(docker.errors.NotFound):
                api.remove_container(made, v=True)
            with suppress(docker.errors.NotFound):
                api.remove_network(network)

    def test_no_network_of_dockers_own_is_a_leftover(self, engine):
        assert {"bridge", "host", "none"} & {one.name for one in engine.unused_networks()} == set()

    def test_an_untagged_image_goes_unless_a_container_was_made_from_it(self, api, engine, image):
        made = api.create_container(image, command=["true"])
        untagged = api.commit(made, message=uuid.uuid4().hex)["Id"]
        user = api.create_container(untagged, command=["true"])
        try:
            assert untagged not in {one.id for one in engine.untagged_images()}
            api.remove_container(user, v=True)
            (found,) = [one for one in engine.untagged_images() if one.id == untagged]
            assert (found.tags, found.digests) == ((), ())
            engine.remove_image(found)
            assert engine.image_info(untagged) is None
        finally:
            api.remove_container(made, v=True)
            with suppress(docker.errors.NotFound):
                api.remove_image(untagged, force=True)

    @pytest.mark.usefixtures("image")
    def test_images_have_a_size(self, engine):
        size = engine.images_size_bytes()
        assert size is None or size > 0
