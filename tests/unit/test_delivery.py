"""Messages reach everybody once, whatever one of the receivers does."""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from stackward.config import Settings
from stackward.observe.notice import Channel, Kind, Message
from stackward.observe.notify import Address, tell
from stackward.observe.ping import failure_url
from stackward.steps.report.delivery import HOST_NOTE, deliver
from stackward.store import Store
from stackward.tools.locks import Locks
from unit.receivers import fine, free_port, hangs, http, refuses

NOW = datetime(2026, 11, 21, 2, 4, tzinfo=UTC)
FAILED = Message("shop: backup-data failed", "shop failed: disk *full* <now>", Kind.FAILURE)


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "s.sqlite", now=NOW, locks=Locks(tmp_path / "locks")) as opened:
        yield opened


def settings(*urls, ping=""):
    return replace(Settings(), notify_urls=urls, ping_url=ping)


def waiting(store, at=NOW + timedelta(hours=3)):
    return [notice.message.title for notice in store.due_notices(at)]


def test_a_message_arrives_as_it_was_written_and_says_from_which_host(store):
    store.set_note(HOST_NOTE, "nas")
    store.post(Channel.NOTIFY, FAILED, NOW)
    with http() as receiver:
        assert deliver(settings(f"json://{receiver.address}/"), store, NOW) == []
    (document,) = receiver.documents
    assert (document["title"], document["message"]) == (f"nas: {FAILED.title}", FAILED.body)
    assert document["type"] == "failure"
    assert waiting(store) == []


def test_whoever_hangs_holds_up_nobody_and_is_told_later(store):
    store.post(Channel.NOTIFY, FAILED, NOW)
    with http(hangs) as slow, http() as quick:
        urls = (f"json://{slow.address}/", f"json://{quick.address}/")
        began = time.monotonic()
        failures = deliver(settings(*urls), store, NOW, limit_seconds=10)
        assert time.monotonic() - began < 60
        assert failures == ["a json address could not be told: it did not answer in time"]
        assert waiting(store) == [FAILED.title]
        deliver(settings(f"json://{quick.address}/"), store, NOW + timedelta(hours=1))
    assert len(quick.requests) == 1
    assert waiting(store) == []


def test_what_was_refused_is_tried_again_and_nobody_is_told_twice(store):
    store.post(Channel.NOTIFY, FAILED, NOW)
    answers = [refuses, fine]

    def next_answer(handler):
        answers.pop(0)(handler)

    with http(next_answer) as moody, http() as steady:
        both = settings(f"json://{moody.address}/", f"json://{steady.address}/")
        (failure,) = deliver(both, store, NOW)
        assert "500" in failure
        assert deliver(both, store, NOW + timedelta(seconds=30)) == []  # not yet
        assert deliver(both, store, NOW + timedelta(minutes=2)) == []
    assert (len(moody.requests), len(steady.requests)) == (2, 1)
    assert waiting(store) == []


def test_messages_come_in_their_order(store):
    for number in range(3):
        store.post(Channel.NOTIFY, Message(str(number), "x"), NOW)
    with http() as receiver:
        deliver(settings(f"json://{receiver.address}/"), store, NOW)
    assert [document["title"] for document in receiver.documents] == ["0", "1", "2"]


def test_without_anybody_to_tell_messages_go(store):
    store.post(Channel.NOTIFY, FAILED, NOW)
    store.post(Channel.PING, Message("ping", ""), NOW)
    assert deliver(settings(), store, NOW) == []
    assert waiting(store) == []


def test_the_dead_mans_switch_is_pinged(store):
    with http() as receiver:
        where = settings(ping=f"http://{receiver.address}/uuid?key=1")
        store.post(Channel.PING, Message("ping", ""), NOW)
        deliver(where, store, NOW)
        store.post(Channel.PING, Message("ping fail", "fail"), NOW)
        deliver(where, store, NOW)
    assert [path for _, path, _ in receiver.requests] == ["/uuid?key=1", "/uuid/fail?key=1"]


def test_a_ping_that_nobody_answered_is_sent_again(store):
    where = settings(ping=f"http://127.0.0.1:{free_port()}/")
    store.post(Channel.PING, Message("ping", ""), NOW)
    (failure,) = deliver(where, store, NOW)
    assert failure.startswith("STACKWARD_PING_URL could not be told")
    assert waiting(store) == ["ping"]


def test_a_url_that_apprise_does_not_know_is_said_so():
    assert tell(Address("nonsense://x"), FAILED) == "this is no URL that Apprise knows"


def test_an_address_shows_nothing_of_its_secrets():
    address = Address("mailtos://me:secret@example.org")
    assert (address.service, "secret" in address.id) == ("mailtos", False)


def test_fail_goes_to_the_end_of_the_path():
    assert failure_url("https://hc-ping.com/uuid") == "https://hc-ping.com/uuid/fail"
    assert failure_url("https://hc-ping.com/uuid/") == "https://hc-ping.com/uuid/fail"
