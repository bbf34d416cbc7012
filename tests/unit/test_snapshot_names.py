from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from stackward.core import snapshot_names

NOW = datetime(2026, 11, 21, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize("label", ["", "before-upgrade", "v1.2_3", "x" * 64])
def test_a_name_says_when_and_what_for(label):
    assert snapshot_names.parse(snapshot_names.name_for(NOW, label), UTC) == (NOW, label)


def test_the_stamp_is_local_time():
    berlin = ZoneInfo("Europe/Berlin")
    name = snapshot_names.name_for(NOW.astimezone(berlin))
    assert name == "20261121_013000"
    assert snapshot_names.parse(name, berlin) == (NOW, "")


@pytest.mark.parametrize("label", ["a/b", "..", "-rf", "ü", "x" * 65, "a\n", "a b"])
def test_a_label_that_is_no_plain_file_name_is_refused(label):
    with pytest.raises(ValueError, match="must be"):
        snapshot_names.name_for(NOW, label)


@pytest.mark.parametrize("label", ["20261121", "2026-11-21", "2026.11.21_0030", "20261121_003000", "20261121_003000-x"])
def test_a_label_that_would_mean_other_snapshots_too_is_refused(label):
    with pytest.raises(ValueError, match="something else than a date"):
        snapshot_names.name_for(NOW, label)


@pytest.mark.parametrize("name", [".incoming-x", "20261121", "20261332_000000", "20261121_003000-", "x20261121_003000"])
def test_other_names_are_not_ours(name):
    assert snapshot_names.parse(name, UTC) is None
    assert not snapshot_names.means("20261121", name)


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        ("20261121_003000-mine", True),
        ("mine", True),
        ("2026-11-21", True),
        ("2026-11-21 00:30", True),
        ("2026-11-21T00:30:00", True),
        ("2026-11", False),
        ("2026-11-22", False),
        ("yours", False),
        ("", False),
    ],
)
def test_what_a_person_may_call_a_snapshot(wanted, meant):
    assert snapshot_names.means(wanted, "20261121_003000-mine") is meant
