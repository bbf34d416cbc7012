"""What a drill proves before anything else of the stack runs."""

from __future__ import annotations

import pytest

from stackward.core.model import Dump, Service, ServicePolicy
from stackward.steps.instance.databases import is_postgres
from stackward.steps.instance.drill_boot import goes_first

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
