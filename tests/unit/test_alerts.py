"""Alert on change, tell of recovery, and lose no message."""

from datetime import UTC, datetime, timedelta

import pytest

from stackward.observe.notice import Channel, Kind, Message
from stackward.store import Store
from stackward.tools.locks import Locks

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
ODD = "caf\udce9 \n--x"


def later(minutes):
    return NOON + timedelta(minutes=minutes)


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "s.sqlite", now=NOON, locks=Locks(tmp_path / "locks")) as opened:
        yield opened


def compose(changes):
    return Message("change", f"{sorted(changes.raised)} {sorted(changes.recovered)}", Kind.FAILURE)


def change(store, failing, *, fine=None, at=NOON, scope="backup-data"):
    return store.change_alerts(scope, failing, fine=fine, at=at, compose=compose)


def bodies(store, at=NOON):
    return [notice.message.body for notice in store.due_notices(at)]


def test_what_goes_on_is_told_once_and_its_end_once(store):
    assert change(store, {ODD: "disk full"}).raised == {ODD: "disk full"}
    assert not change(store, {ODD: "still full"}, at=later(1))
    assert store.alerts("backup-data") == {ODD: "still full"}
    assert change(store, {}, at=later(2)).recovered == {ODD: NOON}
    assert not change(store, {}, at=later(3))
    assert bodies(store, later(3)) == [f"['{ODD}'] []".replace(ODD, repr(ODD)[1:-1]), f"[] [{ODD!r}]"]


def test_a_run_of_some_says_nothing_of_the_others(store):
    change(store, {"shop": "no", "wiki": "no"})
    assert change(store, {}, fine={"shop"}).recovered == {"shop": NOON}
    assert store.alerts("backup-data") == {"wiki": "no"}


def test_scopes_know_nothing_of_each_other(store):
    change(store, {"shop": "no"})
    assert change(store, {"shop": "no"}, scope="health").raised
    assert change(store, {}, scope="health").recovered
    assert store.alerts("backup-data") == {"shop": "no"}


def test_a_change_that_is_not_worth_a_message_is_noted_all_the_same(store):
    store.change_alerts("health", {"shop": "no"}, at=NOON, compose=lambda _changes: None)
    assert store.alerts("health") == {"shop": "no"}
    assert store.due_notices(later(1)) == []


def test_a_message_that_cannot_be_composed_is_no_change(store):
    with pytest.raises(RuntimeError):
        store.change_alerts(
            "health", {"shop": "no"}, at=NOON, compose=lambda _changes: (_ for _ in ()).throw(RuntimeError)
        )
    assert store.alerts("health") == {}


def test_a_message_waits_longer_with_every_attempt_and_knows_who_was_told(store):
    store.post(Channel.NOTIFY, Message("title", "body"), NOON)
    (notice,) = store.due_notices(NOON)
    store.put_off(notice, NOON)
    store.note_told(notice.id, "one")
    assert store.due_notices(later(0.5)) == []
    (again,) = store.due_notices(later(1))
    assert (again.tries, again.told, again.message) == (1, frozenset({"one"}), Message("title", "body"))
    store.put_off(again, later(1))
    assert store.due_notices(later(5)) == []
    assert len(store.due_notices(later(6))) == 1
    store.drop_notice(notice.id)
    assert store.due_notices(later(100)) == []


def test_only_the_newest_ping_is_kept(store):
    for word in ("", "fail"):
        store.post(Channel.PING, Message(word, word), NOON)
    store.post(Channel.NOTIFY, Message("x", "x"), NOON)
    assert [(notice.channel, notice.message.title) for notice in store.due_notices(NOON)] == [
        (Channel.PING, "fail"),
        (Channel.NOTIFY, "x"),
    ]


def test_old_news_and_a_flood_are_dropped(store):
    store.post(Channel.NOTIFY, Message("old", "old"), NOON - timedelta(days=3))
    assert store.drop_old_notices(NOON) == 1
    for number in range(105):
        store.post(Channel.NOTIFY, Message(str(number), ""), NOON)
    assert store.drop_old_notices(NOON) == 5
    assert store.due_notices(NOON)[0].message.title == "5"


def test_a_name_that_is_not_utf8_stops_no_message(store):
    store.change_alerts("x", {ODD: ODD}, at=NOON, compose=lambda _changes: Message(ODD, ODD))
    assert bodies(store) == ["caf\\udce9 \n--x"]
    assert list(store.alerts("x")) == [ODD]
