from __future__ import annotations

import pytest

from stackward.core.images import database, is_cache


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        ("postgres", "postgres"),
        ("postgres:17", "postgres"),
        ("docker.io/library/postgres@sha256:ab", "postgres"),
        ("ghcr.io/immich-app/postgres:14-vectorchord", "postgres"),
        ("timescale/timescaledb-ha:pg17", "postgres"),
        ("mariadb:11", "mariadb"),
        ("mysql:8", "mariadb"),
        ("prom/postgres-exporter", None),
        ("postgrest/postgrest", None),
        ("nginx", None),
        ("", None),
    ],
)
def test_a_database_is_told_by_the_last_part_of_its_name(image, kind):
    assert database(image) == kind


def test_caches_are_told_by_name():
    assert is_cache("docker.io/valkey/valkey:8")
    assert is_cache("redis")
    assert not is_cache("redis-exporter:1")
