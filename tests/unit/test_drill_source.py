"""From which backups a stack is drilled."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stackward.config import Settings
from stackward.core.model import Stack
from stackward.steps import catalog
from stackward.steps.instance import drill_source
from unit.backups import config_backup, data_backup

DAY = timedelta(days=1)
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
STACK = Stack("shop", Path("/docker/shop"), "shop")


@pytest.fixture
def chosen(tmp_path):
    settings = replace(Settings(), backup_root=tmp_path)

    def choose(*configs):
        data_backup(tmp_path, f"data-{NOW - 9 * DAY:%Y-%m-%d}", NOW - 9 * DAY, {"shop": {"f": b"1"}})
        for at in configs:
            config_backup(tmp_path, f"configs-{at:%Y%m%d_%H%M%S}.tar.gz", {"shop/compose.yaml": b""})
        source = drill_source.choose(catalog.catalog(settings, NOW), STACK, f"{NOW - 9 * DAY:%Y-%m-%d}")
        return source.config.name.when

    return choose


def test_the_configuration_is_the_newest_that_is_not_younger_than_the_data_by_more_than_a_day(chosen):
    assert chosen(NOW - 10 * DAY, NOW - 9 * DAY, NOW - 7 * DAY) == NOW - 9 * DAY


def test_where_all_are_younger_it_is_the_oldest_and_none_that_a_wrong_clock_has_dated(chosen):
    assert chosen(NOW + 900 * DAY, NOW - 1 * DAY, NOW - 5 * DAY) == NOW - 5 * DAY
