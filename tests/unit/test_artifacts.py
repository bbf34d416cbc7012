from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from stackward.core.artifacts import (
    INCOMING_PREFIX,
    RESERVED_STACK_NAMES,
    ArtifactKind,
    config_name,
    data_name,
    parse_name,
    replaced_name,
    secrets_name,
)

ZONE = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 21, 2, 3, 4, tzinfo=ZONE)


@pytest.mark.parametrize(
    ("name", "kind", "when"),
    [
        (config_name(NOW), ArtifactKind.CONFIG, NOW),
        (secrets_name(NOW), ArtifactKind.SECRETS, NOW),
        (data_name(NOW), ArtifactKind.DATA, NOW.replace(hour=0, minute=0, second=0)),
    ],
)
def test_a_name_that_is_made_is_one_that_is_read(name, kind, when):
    artifact = parse_name(name, ZONE)
    assert artifact is not None
    assert (artifact.name, artifact.kind, artifact.when, artifact.replaced_at) == (name, kind, when, None)


def test_the_names_are_those_of_the_scripts_before():
    assert config_name(NOW) == "configs-20261121_020304.tar.gz"
    assert secrets_name(NOW) == "secrets-20261121_020304.tar.gz.age"
    assert data_name(NOW) == "data-2026-11-21"


def test_a_replaced_day_tells_since_when():
    artifact = parse_name(replaced_name("data-2026-11-20", NOW), ZONE)
    assert artifact is not None
    assert artifact.replaced_at == NOW
    assert artifact.when == datetime(2026, 11, 20, tzinfo=ZONE)


@pytest.mark.parametrize(
    "name",
    [
        "", "data-2026-02-30", "data-2026-11-21x", "configs-20261121_250000.tar.gz", "configs-20261121_020304.tar.gz.sha256",
        f"{INCOMING_PREFIX}data-2026-11-21", f"{INCOMING_PREFIX}{config_name(NOW)}", "data-2026-11-21\n", "lost+found",
        "data-2026-11-21.replaced-20261399_000000", "data-২০২৬-11-21",
    ],
)  # fmt: skip
def test_nothing_else_is_listed(name):
    assert parse_name(name, ZONE) is None


def test_artifacts_sort_by_time():
    names = ["data-2026-11-21", "configs-20261120_020000.tar.gz", "data-2026-11-19"]
    assert [a.name for a in sorted(filter(None, (parse_name(name, ZONE) for name in names)))] == names[::-1]


def test_what_a_data_backup_uses_itself_is_no_name_for_a_stack():
    assert {"MANIFEST.sha256", "stackward.json", ".mounts", ".dumps"} == RESERVED_STACK_NAMES
