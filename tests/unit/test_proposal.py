from pathlib import Path

import pytest
import yaml

from stackward.core.images import database, is_cache
from stackward.core.labels import EXTENSION, read_policy
from stackward.core.model import Service, Stack, Tree, TreeKind
from stackward.core.proposal import propose


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        ("postgres:17", "postgres"),
        ("ghcr.io/immich-app/postgres:14-vectorchord@sha256:00", "postgres"),
        ("bitnami/postgresql", "postgres"),
        ("timescale/timescaledb-ha:pg17", "postgres"),
        ("mysql:8", "mariadb"),
        ("lscr.io/linuxserver/mariadb", "mariadb"),
        ("prometheuscommunity/postgres-exporter", None),
        ("registry:5000/mypostgres", None),
        ("", None),
    ],
)
def test_databases_are_told_by_their_image(image, kind):
    assert database(image) == kind


@pytest.mark.parametrize(("image", "cache"), [("redis:7", True), ("valkey/valkey", True), ("redis-exporter", False)])
def test_caches_are_told_by_their_image(image, cache):
    assert is_cache(image) is cache


def tree(name, *services):
    path = Path("/srv", name)
    return Tree("shop", name, TreeKind.BIND, path, path, writable=True, services=services)


def stack(*trees, **images):
    services = tuple(Service(name, image) for name, image in images.items())
    return Stack("shop", Path("/opt/docker/shop"), "shop", services=services, trees=trees)


FULL = stack(
    tree("library", "web"),
    tree("model-cache", "web"),
    tree("queue", "redis"),
    web="app",
    redis="redis:7",
    db="postgres",
)


def read_back(document, services):
    labels = {name: (document.get("services", {}).get(name) or {}).get("labels", {}) for name in services}
    reading = read_policy("shop", labels, document.get(EXTENSION))
    assert not reading.problems
    return reading


@pytest.mark.parametrize("form", ["as_extension", "as_labels"])
def test_what_is_proposed_reads_back_as_meant(form):
    document = yaml.safe_load(getattr(propose(FULL, {}), form)())
    reading = read_back(document, ["web", "redis", "db"])
    assert reading.policy.backup is True
    assert [dump.kind for dump in reading.services["db"].dumps] == ["postgres"]
    assert reading.policy.skip == ()


@pytest.mark.parametrize("form", ["as_extension", "as_labels"])
def test_what_looks_rebuilt_is_skipped_only_once_somebody_takes_the_sign_away(form):
    text = getattr(propose(FULL, {}), form)()
    reading = read_back(yaml.safe_load(text.replace("# ", "")), ["web", "redis", "db"])
    assert reading.policy.skip == ("model-cache", "queue")


def test_odd_service_names_are_quoted():
    proposal = propose(stack(**{"on": "postgres", "0": "mysql", "a:b #c": "mariadb"}), {})
    document = yaml.safe_load(proposal.as_extension())
    assert set(document[EXTENSION]["services"]) == {"on", "0", "a:b #c"}


def test_a_stack_without_trees_and_one_with_a_large_tree_are_told():
    library = tree("library", "web")
    assert "configuration" in propose(stack(web="app"), {}).notes[0]
    assert "large (200 GiB)" in propose(stack(library, web="app"), {library: 200 << 30}).notes[0]


def test_a_stack_without_services_has_a_block_all_the_same():
    proposal = propose(stack(), {})
    assert yaml.safe_load(proposal.as_extension()) == {EXTENSION: {"backup": True}}
    assert yaml.safe_load(proposal.as_labels()) == {"services": None}


def test_a_stack_with_nothing_special_is_switched_on_and_no_more():
    proposal = propose(stack(tree("library", "web"), web="app"), {})
    assert yaml.safe_load(proposal.as_labels()) == {"services": {"web": {"labels": {"stackward.backup": "true"}}}}
