"""A look at the host: verdicts for metrics, and what stands wrong."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from stackward.core.model import Outcome
from stackward.core.verdict import Cause
from stackward.steps.report.view import look
from unit.hosts import NOW, SmallHost

SHOP = """
    services:
      web:
        image: x
        volumes: ["./data:/data"]
        labels: {stackward.backup: "true"}
"""
PLAIN = SHOP.replace('labels: {stackward.backup: "true"}', "")


@pytest.fixture
def host(tmp_path):
    made = SmallHost(tmp_path / "host", minimum_free_bytes=0)
    made.stack("shop", SHOP, data__a="1")
    yield made
    made.store.close()


def seen(host, **more):
    values = {"now": NOW, "open_undo": 0, "intervals": {}, **more}
    return look(host.settings, host.store, host.discover, **values)


def stacks(found):
    return {stack.name: stack for stack in found.view.stacks}


def only(found, key):
    """The docker engine is away in these tests, which is said too."""
    return [text for about, text in found.conditions.items() if key in about]


def test_each_stack_has_its_verdict_in_a_word(host):
    host.stack("plain", PLAIN)
    host.stack("off", SHOP.replace('"true"', '"false"'))
    found = {name: (stack.state, stack.cause) for name, stack in stacks(seen(host)).items()}
    assert found == {
        "shop": ("unprotected", Cause.NEVER),
        "plain": ("undecided", ""),
        "off": ("off", ""),
    }


def test_backups_are_counted_and_damage_too(host):
    (host.settings.backup_root / "configs-20261121_020000.tar.gz").write_bytes(b"12345")
    (host.settings.backup_root / "configs-20261120_020000.tar.gz").write_bytes(b"123")
    host.store.record_verified("configs-20261121_020000.tar.gz", NOW, Outcome.FAILED, 1, [""])
    view = seen(host).view
    config = next(one for one in view.backups if one.kind == "config")
    assert (config.count, config.size_bytes, view.damaged) == (2, 3, 1)


def test_a_seed_backup_that_grew_old_is_told(host):
    (host.settings.backup_root / "data-2026-11-01/shop").mkdir(parents=True)
    (host.settings.backup_root / "configs-20261121_020000.tar.gz").write_bytes(b"1")
    found = seen(host)
    assert stacks(found)["shop"].cause == Cause.OLD
    assert only(found, "the backup of shop") == ["shop is not protected: its data was last backed up 20d ago."]


def test_labels_that_went_and_directories_that_went_are_told(host):
    for name in ("shop", "vanished"):
        host.store.remember_opted_in(name, NOW)
    host.stack("shop", PLAIN)
    found = seen(host)
    assert "`stackward accept shop`" in only(found, "the labels of shop")[0]
    assert "`stackward accept vanished`" in only(found, "the directory of vanished")[0]
    assert (stacks(found)["vanished"].state, stacks(found)["vanished"].cause) == ("unprotected", Cause.GONE)
    assert stacks(found)["shop"].state == "unprotected"


def test_a_docker_root_that_went_leaves_the_stacks_unprotected_instead_of_forgotten(host):
    host.stack("plain", PLAIN)
    host.store.keep_view(seen(host).view)
    host.settings = replace(host.settings, docker_root=Path("/nonexistent"))
    found = seen(host)
    assert (stacks(found)["shop"].state, stacks(found)["shop"].cause) == ("unprotected", Cause.NO_DOCKER_ROOT)
    assert stacks(found)["plain"].state == "undecided"
    assert only(found, "DOCKER_ROOT")


def test_a_backup_root_that_went_is_told_once_and_not_per_stack(host):
    host.settings = replace(host.settings, backup_root=Path("/nonexistent"))
    found = seen(host)
    assert stacks(found)["shop"].cause == Cause.UNREADABLE
    assert set(found.conditions) == {"BACKUP_ROOT", "the Docker Engine"}
    assert found.view.backups == found.view.spaces == ()


def test_too_little_room_is_told(host):
    host.settings = replace(host.settings, minimum_free_bytes=1 << 60)
    found = seen(host)
    assert "backups are refused" in only(found, "the room")[0]
    assert found.view.spaces[0].minimum_bytes == 1 << 60


def test_what_a_run_left_and_a_silent_engine_are_told(host):
    found = seen(host, open_undo=1)
    assert only(found, "what a run left")
    assert only(found, "the Docker Engine")
    assert (found.view.open_undo, found.view.docker_answers) == (1, False)


def test_held_stacks_and_problems_are_seen(host):
    host.stack("shop", SHOP.replace('"true"', '"perhaps"'))
    host.store.hold("shop", "data", "it is empty now", NOW - timedelta(hours=1))
    shop = stacks(seen(host))["shop"]
    assert (shop.held, shop.cause) == (True, Cause.SHRANK)
    assert shop.problems >= 1
