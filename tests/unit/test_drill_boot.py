"""What a drill proves before anything else of the stack runs."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime

import pytest

from stackward.core.model import Dump, Service, ServicePolicy, Stack
from stackward.core.staging import PROXY
from stackward.steps.instance.databases import is_postgres
from stackward.steps.instance.drill_boot import Tools, boot, goes_first
from stackward.steps.instance.staging import Plan
from stackward.tools import compose
from stackward.tools.docker import Docker
from unit.hosts import DOCKER_HOST

MARIADB = (Dump("db", "mariadb"),)
POSTGRES = (Dump("db", "postgres"),)


@pytest.mark.parametrize(
    ("image", "policy", "target"),
    [
        ("bitnami/postgresql:16", ServicePolicy(), "/data"),
        ("tensorchord/pgvecto-rs:pg16-v0.2.0", ServicePolicy(), "/data"),
        ("shop-db", ServicePolicy(), "/var/lib/postgresql/data"),
        ("shop-db", ServicePolicy(dumps=POSTGRES), "/data"),
    ],
)
def test_postgresql_is_told_by_its_image_its_dump_or_where_its_data_is(image, policy, target):
    service, definition = Service("db", image, policy), {"volumes": [{"type": "bind", "target": target}]}
    assert is_postgres(service, definition)
    assert goes_first(service, definition)
    assert not is_postgres(Service("db", "shop-db"), {"volumes": [{"type": "bind", "target": "/data"}]})


@pytest.mark.parametrize(
    ("image", "policy", "first"),
    [
        (
            "mariadb:11",
            ServicePolicy(dumps=MARIADB),
            False,
        ),  # nothing proves it yet: its ports are probed with the rest
        ("mariadb:11", ServicePolicy(dumps=MARIADB, probe=":3306"), False),
        ("shop-db", ServicePolicy(dumps=MARIADB, probe="mariadb-check -A"), True),
        ("mariadb:11", ServicePolicy(probe="mariadb-check -A"), True),
        ("postgres:17", ServicePolicy(probe="true"), True),
        ("postgres:17", ServicePolicy(probe=":8080/"), False),
        ("nginx", ServicePolicy(probe="true"), False),
    ],
)
def test_only_what_can_be_proven_alone_starts_before_the_rest(image, policy, first):
    assert goes_first(Service("db", image, policy), {}) is first


@pytest.fixture
def booted(tmp_path, image):
    """What is seen of a service called `db` that has a port in production; its prober only says what it is asked."""
    project = f"unit{uuid.uuid4().hex[:8]}"

    def boot_it(policy):
        service = {"image": image, "command": ["sleep", "inf"], "network_mode": "none", "stop_signal": "SIGKILL"}
        prober = {**service, "configs": [{"source": "python", "target": "/bin/python3", "mode": 0o755}]}
        says = {"python": {"content": '#!/bin/sh\necho asked for "$$@"\n'}}
        model = {"name": project, "services": {"db": service, PROXY: prober}, "configs": says}
        (tmp_path / "compose.yaml").write_text(json.dumps(model))
        production = {"services": {"db": {**service, "ports": [{"target": 3306}]}}}
        stack = Stack("shop", tmp_path, "shop", (Service("db", image, policy),), raw=production)
        tools = Tools(
            Docker(DOCKER_HOST), stack, datetime(2026, 11, 21, tzinfo=UTC), None, 30.0, lambda _: None, lambda _: None
        )
        seen = boot(tools, Plan(stack, project, tmp_path, model))
        assert not seen.wrong
        return seen.proofs

    yield boot_it
    compose.down(tmp_path)


@pytest.mark.usefixtures("needs_compose")
def test_a_database_that_nothing_has_proven_is_probed_by_its_ports(booted):
    assert "db: asked for -m stackward.tools.web_probe db 3306" in booted(ServicePolicy(dumps=MARIADB))


@pytest.mark.usefixtures("needs_compose")
def test_one_that_its_own_command_has_proven_is_not_probed_once_more(booted):
    proofs = booted(ServicePolicy(dumps=MARIADB, probe="true"))
    assert [proof for proof in proofs if proof.startswith("db: ")] == ["db: running", "db: its probe succeeds"]
