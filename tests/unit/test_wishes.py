from datetime import timedelta

import pytest

from stackward.store import Store
from stackward.tools.locks import Locks
from unit.hosts import NOW


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "s.sqlite", now=NOW, locks=Locks(tmp_path / "locks")) as opened:
        yield opened


def test_a_pause_ends_by_itself_or_when_told(store):
    assert store.paused_until(NOW) is None
    store.pause(NOW + timedelta(hours=2))
    assert store.paused_until(NOW) == NOW + timedelta(hours=2)
    assert store.paused_until(NOW + timedelta(hours=2)) is None
    store.resume()
    assert store.paused_until(NOW) is None


def test_what_is_asked_for_twice_is_wanted_once_and_done_once(store):
    store.request("health", NOW)
    store.request("health", NOW + timedelta(seconds=1))
    store.request("backup-config", NOW)
    store.set_note("requesting nothing", "x")
    assert store.requests() == {"health": NOW + timedelta(seconds=1), "backup-config": NOW}
    store.fulfil("health", NOW + timedelta(seconds=1))
    assert store.requests() == {"backup-config": NOW}


def test_who_asks_again_while_it_is_begun_is_heard(store):
    store.request("health", NOW + timedelta(seconds=5))
    store.fulfil("health", NOW)
    assert "health" in store.requests()
