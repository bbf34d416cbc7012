from datetime import UTC, datetime, timedelta

import pytest

from stackward.core.retries import Failure, next_retry

TWO = datetime(2026, 11, 21, 2, tzinfo=UTC)


def failed(trigger, hours):
    return Failure(trigger, TWO + timedelta(hours=hours))


@pytest.mark.parametrize(
    ("failures", "hours"),
    [
        ([failed("schedule", 0)], 1),
        ([failed("retry", 1), failed("schedule", 0)], 4),
        ([failed("retry", 4), failed("retry", 1), failed("schedule", 0)], None),
        ([failed("schedule", 24), failed("retry", 4), failed("retry", 1), failed("schedule", 0)], 25),
        ([failed("cli", 0.5), failed("schedule", 0)], 1),
        ([failed("cli", 0)], None),
        ([], None),
    ],
)
def test_a_scheduled_failure_is_tried_again_after_one_and_four_hours(failures, hours):
    assert next_retry(failures) == (None if hours is None else TWO + timedelta(hours=hours))
