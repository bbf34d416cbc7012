"""What people are told, word for word."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from stackward.observe.messages import Trouble, ended, standing, when
from stackward.observe.notice import Changes, Kind

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 21, 2, 4, tzinfo=BERLIN)
YESTERDAY = (NOW - timedelta(days=1, minutes=1)).astimezone(UTC)


def trouble(stack="nextcloud", *reasons, last_good=YESTERDAY):
    return Trouble(stack, NOW, reasons or ("disk full",), last_good)


def body(*troubles, job="backup-data", recovered=None, **counts):
    message = ended(job, troubles, recovered or {}, NOW, **counts)
    return message.body if message else None


def test_one_stack_failed():
    message = ended("backup-data", [trouble()], {}, NOW, fine=7)
    assert message.body == (
        "nextcloud failed at 02:04: disk full. Last good: yesterday 02:03. The other 7 are fine. "
        "Next: `stackward backup nextcloud`"
    )
    assert (message.title, message.kind) == ("nextcloud: backup-data failed", Kind.FAILURE)


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"fine": 1}, "The other one is fine."),
        ({"fine": 2, "still": 1}, "2 others are fine, 1 still fails."),
        ({"fine": 1, "still": 3}, "1 other is fine, 3 still fail."),
        ({"still": 2}, "No other one is fine."),
        ({}, "yesterday 02:03. Next:"),
    ],
)
def test_what_is_said_of_the_others(counts, told):
    assert told in body(trouble(), **counts)


def test_several_stacks_failed():
    assert body(trouble(), trouble("my wiki", "hook timed out.", last_good=None), fine=6).splitlines() == [
        "2 stacks failed in backup-data:",
        "- nextcloud failed at 02:04: disk full. Last good: yesterday 02:03.",
        "- my wiki failed at 02:04: hook timed out. It never succeeded before.",
        "The other 6 are fine. Next: `stackward backup nextcloud 'my wiki'`",
    ]


def test_a_job_failed_as_a_whole():
    reasons = ("BACKUP_ROOT has no ID file", "HINT: is the disk mounted?")
    assert body(trouble("", *reasons)) == (
        "backup-data failed at 02:04: BACKUP_ROOT has no ID file. Last good: yesterday 02:03. Next: is the disk mounted?"
    )
    assert body(trouble("", "no"), job="prune").endswith("Next: `stackward prune`")
    assert body(trouble("", "no"), job="news").endswith("Next: `stackward runs --job news`")


def test_another_job_than_the_backup_is_named():
    assert body(trouble(), job="verify").startswith("nextcloud failed in verify at 02:04: disk full.")


def test_a_recovery_is_told_and_since_when_it_was_not():
    message = ended("backup-data", [], {"wiki": YESTERDAY, "": NOW}, NOW, fine=8)
    assert message.body.splitlines() == [
        "wiki is fine again; it had failed since yesterday 02:03.",
        "backup-data is fine again; it had failed since 02:04.",
    ]
    assert (message.title, message.kind) == ("wiki: backup-data fine again", Kind.SUCCESS)


def test_a_recovery_beside_a_failure_is_one_message():
    message = ended("backup-data", [trouble()], {"wiki": YESTERDAY}, NOW, fine=1)
    assert len(message.body.splitlines()) == 2
    assert message.kind is Kind.FAILURE


def test_a_flood_is_cut_short():
    lines = body(*(trouble(f"s{number}") for number in range(30))).splitlines()
    assert len(lines) == 13
    assert lines[-2] == "… and 20 more; `stackward status` has them all."
    assert lines[-1] == "Next: `stackward backup`"


def test_nothing_new_is_no_message():
    assert ended("backup-data", [], {}, NOW, fine=8) is None
    assert standing(Changes({}, {}), NOW) is None


def test_no_reason_and_odd_names_are_told_all_the_same():
    assert "no reason was given" in body(Trouble("x", NOW, ()))
    assert "caf\\xe9 failed" in body(trouble("caf\udce9"))


def test_what_stands_wrong():
    changes = Changes({"the Docker Engine": "Docker does not answer: gone."}, {"the labels of shop": YESTERDAY})
    message = standing(changes, NOW)
    assert message.body.splitlines() == [
        "Docker does not answer: gone.",
        "The labels of shop: fine again; it was not since yesterday 02:03.",
    ]
    assert (message.title, message.kind) == ("The Docker Engine: look at it", Kind.WARNING)


@pytest.mark.parametrize(
    ("ago", "told"),
    [
        (timedelta(hours=2), "00:04"),
        (timedelta(hours=3), "yesterday 23:04"),
        (timedelta(days=2), "Thursday 02:04"),
        (timedelta(days=7), "2026-11-14 02:04"),
        (timedelta(days=-1), "2026-11-22 02:04"),
    ],
)
def test_times_are_told_as_a_person_would_in_the_zone_of_now(ago, told):
    assert when((NOW - ago).astimezone(UTC), NOW) == told
