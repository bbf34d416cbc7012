"""The daemon's lookout, as a thread with real messages: what stands wrong is told, and nothing that hangs holds it up."""

import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from stackward.store import open_in
from stackward.week.lookout import Lookout
from unit.hosts import NOW, SmallHost
from unit.receivers import hangs, http

COMPOSE = """
    services:
      web:
        image: x
        labels: {stackward.backup: "true"}
"""


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host without Docker, which is the one thing that stands wrong there."""
    made = SmallHost(tmp_path / "host", minimum_free_bytes=0)
    made.stack("shop", COMPOSE)
    made.store.close()
    # What the process that sends messages is told.
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    monkeypatch.setenv("STACKWARD_STATE_DIR", str(made.settings.state_dir))
    monkeypatch.setenv("STACKWARD_CONFIG_DIR", str(made.settings.config_dir))
    return made


@contextmanager
def looking(host, look_seconds=0.3):
    ending = threading.Event()
    lookout = Lookout(host.settings, ending, look_seconds=look_seconds, tick_seconds=0.1)
    lookout.start()
    try:
        yield lookout
    finally:
        ending.set()
        lookout.join(20)
        assert not lookout.is_alive()


@contextmanager
def store_of(host):
    with open_in(host.settings.state_dir, NOW) as store:
        yield store


def until(found, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.05)
    return value


def test_what_was_seen_is_kept_for_metrics(host):
    with looking(host), store_of(host) as store:
        view = until(lambda: store.facts().view)
        assert [stack.name for stack in view.stacks] == ["shop"]
        until(lambda: store.facts().view.at > view.at)


def test_what_stands_wrong_at_two_looks_is_told_and_what_no_longer_does(host, monkeypatch):
    with http() as webhook:
        monkeypatch.setenv("STACKWARD_NOTIFY_URLS", f"json://{webhook.address}/")
        host.settings = replace(host.settings, minimum_free_bytes=1 << 60)
        with looking(host):
            until(lambda: any("backups are refused" in one["message"] for one in webhook.documents))
            time.sleep(1)
        assert len(webhook.requests) == 1
        host.settings = replace(host.settings, minimum_free_bytes=0)
        with looking(host):
            until(lambda: any("fine again" in one["message"] for one in webhook.documents))
        assert "Docker does not answer" in webhook.documents[0]["message"]


def test_what_stands_wrong_once_is_not_told(host):
    with looking(host, look_seconds=60), store_of(host) as store:
        until(lambda: store.facts().view)
        time.sleep(0.5)
        assert store.alerts("standing") == {}


def test_a_webhook_that_hangs_holds_up_no_look(host, monkeypatch):
    with http(hangs) as webhook:
        monkeypatch.setenv("STACKWARD_NOTIFY_URLS", f"json://{webhook.address}/")
        with looking(host), store_of(host) as store:
            until(lambda: webhook.requests)
            at = store.facts().view.at
            until(lambda: store.facts().view.at > at, seconds=10)


def test_a_history_that_is_moved_aside_is_followed(host):
    with looking(host):
        with store_of(host) as store:
            until(lambda: store.facts().view)
        for suffix in ("", "-wal", "-shm"):
            (host.settings.state_dir / f"stackward.sqlite{suffix}").unlink(missing_ok=True)
        with store_of(host) as store:
            until(lambda: store.facts().view)
