from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackward.core.units import format_age, format_bytes, format_duration, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10m", 600),
        ("1h30m", 5400),
        ("45s", 45),
        ("2d", 172800),
        ("1w", 604800),
        ("500ms", 0.5),
        ("1.5h", 5400),
        ("0", 0),
        (" 1h 5m ", 3900),
    ],
)
def test_durations_are_seconds(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", " ", "10", "m", "10x", "-5m", "5m!", "1h,5m", "five"])
def test_what_is_no_duration_says_what_would_be_right(text):
    with pytest.raises(ValueError, match="must be a duration such as 45s"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("512", 512), ("512B", 512), ("1k", 1024), ("256MiB", 256 << 20), ("1G", 1 << 30), ("1g", 1 << 30),
        ("1GB", 10**9), ("1.5 GiB", 3 << 29), ("2T", 2 << 40), ("1P", 1 << 50), ("20 MB", 20 * 10**6),
    ],
)  # fmt: skip
def test_sizes_are_bytes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1G", "1X", "1GG", "1 000", "1iB", "lots"])
def test_what_is_no_size_says_what_would_be_right(text):
    with pytest.raises(ValueError, match="must be a size such as 512MiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1 KiB"), (1536, "1.5 KiB"), (256 << 20, "256 MiB"), (1 << 30, "1 GiB"),
        (1_200_000_000, "1.1 GiB"), (-1536, "-1.5 KiB"), (1 << 60, "1024 PiB"),
    ],
)  # fmt: skip
def test_sizes_are_shown_short(size, text):
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (0.42, "0.4s"), (9.94, "9.9s"), (9.96, "10s"), (59.6, "1m"), (90, "1m30s"), (3600, "1h"),
        (5400, "1h30m"), (86399, "23h59m"), (183600, "2d3h"), (-90, "-1m30s"),
    ],
)  # fmt: skip
def test_durations_are_shown_with_their_two_largest_units(seconds, text):
    assert format_duration(seconds) == text


@given(st.floats(0, 10**8))
def test_a_duration_that_is_shown_is_read_back_nearly(seconds):
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=0.05, abs=0.06)


NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("ago", "text"),
    [
        (timedelta(0), "just now"), (timedelta(seconds=59), "just now"), (timedelta(minutes=5), "5m ago"),
        (timedelta(hours=47), "47h ago"), (timedelta(days=2), "2d ago"), (timedelta(days=62), "62d ago"),
        (timedelta(weeks=9), "9w ago"), (timedelta(hours=-4), "in 4h"),
    ],
)  # fmt: skip
def test_ages(ago, text):
    assert format_age(NOW - ago, NOW) == text


def test_an_age_counts_real_time_across_a_change_of_the_clock():
    berlin = ZoneInfo("Europe/Berlin")
    midnight, noon = (datetime(2026, 10, 25, hour, tzinfo=berlin) for hour in (0, 12))
    assert format_age(midnight, noon) == "13h ago"
