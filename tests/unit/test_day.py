from datetime import UTC, datetime

from stackward.core.index import Index
from stackward.steps.backup import day as days

NOW = datetime(2026, 11, 21, 2, tzinfo=UTC)


def test_a_day_that_is_made_three_times_in_a_second_stays_listed_each_time(tmp_path):
    index = Index("2026-11-21", NOW.isoformat(), "host", {})
    for number in range(3):
        day = days.begin(tmp_path, "data-2026-11-21", f"run-{number}", None)
        (day.path / f"made-{number}").touch()
        days.publish(day, "data-2026-11-21", index, [], NOW)

    held = {entry.name: [path.name for path in entry.glob("made-*")] for entry in tmp_path.iterdir()}
    assert held == {
        "data-2026-11-21": ["made-2"],
        "data-2026-11-21.replaced-20261121_020000": ["made-0"],
        "data-2026-11-21.replaced-20261121_020001": ["made-1"],
    }
