"""The agenda asked by a simulated clock, as the daemon asks it: at every tick, with the history of what began."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from stackward.core.agenda import Agenda
from stackward.core.week import WEEK, Row, plan

BERLIN = ZoneInfo("Europe/Berlin")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")  # its clocks go by half an hour
ALL_ON = {row.name: "on" for row in WEEK}
RARE = [row for row in WEEK if not row.frequent]


class Host:
    """What the daemon does, without the work."""

    def __init__(self, zone, start, *, rows=WEEK, said=ALL_ON, delays=None):
        self.zone = zone
        self.start = self.now = start.astimezone(UTC)
        self.agenda = Agenda(plan(said, on=True, rows=rows), zone, delays)
        self.begun: dict[str, list[datetime]] = {row.name: [] for row in rows}

    def last(self, name):
        return self.begun[name][-1] if self.begun[name] else self.start

    def tick(self, at):
        self.now = at.astimezone(UTC)
        due = self.agenda.due(self.now, self.last)
        for one in due:
            self.begun[one.planned.name].append(self.now)
        return [one.planned.name for one in due]

    def live(self, until, *, step=None, lag=timedelta(0)):
        """Tick every `step`, or at each time that is next, a little late."""
        while self.now < until.astimezone(UTC):
            self.tick(self.now + step if step else self.upcoming() + lag * random.random())

    def upcoming(self):
        return min(filter(None, (self.agenda.next(row, self.now) for row in self.agenda._rows))).astimezone(UTC)

    def local(self, name):
        return [at.astimezone(self.zone) for at in self.begun[name]]


def days_of(year):
    return [date(year, 1, 1) + timedelta(days=number) for number in range(366 if year % 4 == 0 else 365)]


@pytest.mark.parametrize("zone", [BERLIN, LORD_HOWE], ids=str)
def test_over_a_whole_year_with_both_changes_of_the_clock_no_run_is_lost_or_doubled(zone):
    rare = Host(zone, datetime(2026, 1, 1, tzinfo=zone) - timedelta(seconds=1), rows=RARE)
    rare.live(datetime(2027, 1, 1, tzinfo=zone), lag=timedelta(seconds=15))
    for row in RARE:
        minute, hour, _, _, weekday = row.schedule.split()
        days = [day for day in days_of(2026) if weekday == "*" or day.isoweekday() % 7 == int(weekday)]
        begun = [at for at in rare.local(row.name) if at.year == 2026]
        assert [at.date() for at in begun] == days, row.name
        wall = Counter(at.strftime("%H:%M") for at in begun)
        assert wall[f"{int(hour):02}:{int(minute):02}"] >= len(days) - 1, row.name  # one may fall into spring's gap


def test_the_frequent_ones_come_as_often_in_a_year_as_it_has_minutes_for():
    """All rows at once: what runs often neither holds up nor doubles what runs rarely."""
    host = Host(BERLIN, datetime(2026, 1, 1, tzinfo=BERLIN) - timedelta(minutes=5))
    host.live(datetime(2027, 1, 1, tzinfo=BERLIN), step=timedelta(minutes=5))
    in_2026 = {name: [at for at in host.local(name) if at.year == 2026] for name in host.begun}
    assert len(in_2026["health"]) == 365 * 24 * 12
    assert len(in_2026["observability"]) == 365 * 24 * 6
    assert len(in_2026["nightly"]) == 365
    gaps = {later - earlier for earlier, later in zip(host.begun["health"], host.begun["health"][1:], strict=False)}
    assert gaps == {timedelta(minutes=5)}


@pytest.mark.parametrize("change", [datetime(2026, 3, 29), datetime(2026, 10, 25)], ids=["spring", "autumn"])
def test_ticks_of_any_length_see_the_same_runs_around_a_change(change):
    runs = []
    for step in (timedelta(seconds=5), timedelta(seconds=47), timedelta(minutes=4)):
        host = Host(BERLIN, change.replace(tzinfo=BERLIN) - timedelta(minutes=1))
        host.live(change.replace(tzinfo=BERLIN) + timedelta(hours=8), step=step)
        runs.append({name: len(begun) for name, begun in host.begun.items() if name in ("nightly", "weekly", "health")})
    assert runs[0] == runs[1] == runs[2]
    assert (runs[0]["nightly"], runs[0]["weekly"]) == (1, 1)  # both changes are on Sundays


def test_after_a_fortnight_off_each_row_is_made_up_for_once_and_none_twice():
    host = Host(BERLIN, datetime(2026, 11, 1, 12, tzinfo=BERLIN))
    host.live(datetime(2026, 11, 3, 12, tzinfo=BERLIN))
    back = datetime(2026, 11, 17, 9, 17, tzinfo=BERLIN)
    assert sorted(host.tick(back)) == sorted(row.name for row in WEEK)
    assert host.tick(back + timedelta(seconds=5)) == []
    assert host.tick(back + timedelta(minutes=4)) == ["health", "observability"]


def test_a_new_host_makes_up_for_nothing():
    host = Host(BERLIN, datetime(2026, 11, 1, 12, 1, tzinfo=BERLIN))
    assert host.tick(datetime(2026, 11, 1, 12, 4, tzinfo=BERLIN)) == []


def test_what_is_due_is_due_until_it_has_begun_and_the_earliest_comes_first():
    host = Host(BERLIN, datetime(2026, 11, 22, 1, tzinfo=BERLIN), rows=RARE)
    at = datetime(2026, 11, 22, 3, 1, tzinfo=BERLIN)
    due = host.agenda.due(at, host.last)
    assert [one.planned.name for one in due if one.planned.name in ("nightly", "weekly")] == ["nightly", "weekly"]
    assert host.agenda.due(at + timedelta(hours=1), host.last)[: len(due)] == due
    host.tick(at + timedelta(hours=1))
    assert host.agenda.due(at + timedelta(hours=1, seconds=5), host.last) == []


def test_what_a_person_ran_before_its_time_runs_at_its_time_and_after_it_does_not():
    host = Host(BERLIN, datetime(2026, 11, 20, 12, tzinfo=BERLIN), rows=RARE)
    host.begun["nightly"].append(datetime(2026, 11, 21, 1, 50, tzinfo=BERLIN))
    assert "nightly" in host.tick(datetime(2026, 11, 21, 2, 0, 3, tzinfo=BERLIN))
    host.begun["nightly"][-1] += timedelta(minutes=30)
    assert "nightly" not in host.tick(datetime(2026, 11, 21, 2, 31, tzinfo=BERLIN))


def test_a_clock_that_was_wrong_for_a_while_stops_nothing():
    host = Host(BERLIN, datetime(2026, 11, 20, 12, tzinfo=BERLIN), rows=RARE)
    host.tick(datetime(2031, 1, 1, tzinfo=BERLIN))  # a dead clock battery, until the network says better
    for begun in host.begun.values():
        begun.clear()  # the history leaves out what is of the future
    assert host.tick(datetime(2026, 11, 20, 13, tzinfo=BERLIN)) == []
    assert "nightly" in host.tick(datetime(2026, 11, 21, 2, 0, 5, tzinfo=BERLIN))


def test_a_delay_moves_each_run_by_as_much_also_over_changes_of_the_clock():
    delay = timedelta(minutes=55)
    rows = [Row("nightly", "30 2 * * *", "")]
    host = Host(BERLIN, datetime(2026, 1, 1, tzinfo=BERLIN), rows=rows, said={}, delays={"nightly": delay})
    host.live(datetime(2027, 1, 1, tzinfo=BERLIN), step=timedelta(minutes=5))
    assert [at.date() for at in host.local("nightly")] == days_of(2026)
    instants = Counter(at.strftime("%H:%M") for at in host.local("nightly"))
    assert instants == {
        "03:25": 363,
        "03:55": 1,
        "02:25": 1,
    }  # 03:00 + 55 min after the gap; 02:30 summer time + 55 min


def test_a_delay_near_the_pause_between_two_runs_loses_none():
    rows = [Row("often", "*/5 * * * *", "")]
    host = Host(BERLIN, datetime(2026, 1, 1, tzinfo=BERLIN), rows=rows, delays={"often": timedelta(seconds=74)})
    host.live(datetime(2026, 1, 2, tzinfo=BERLIN), step=timedelta(seconds=5))
    assert len(host.begun["often"]) == 288


def test_what_is_off_is_never_due_and_has_no_next_time():
    (off,) = plan({"nightly": "off"}, on=True, rows=[Row("nightly", "0 2 * * *", "")])
    agenda = Agenda([off], BERLIN)
    assert agenda.due(datetime(2026, 11, 21, 2, tzinfo=BERLIN), lambda _: datetime(2020, 1, 1, tzinfo=UTC)) == []
    assert agenda.next(off, datetime(2026, 11, 21, 2, tzinfo=BERLIN)) is None
