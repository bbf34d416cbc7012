"""The nights of a month: what the week's jobs do at their times, and what goes wrong or is done by somebody meanwhile."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from btrfs.ledger import Ledger
from btrfs.living_host import ZONE, Accounts, Lives, LivingHost
from stackward.core.errors import ExitCode
from stackward.core.model import Outcome
from stackward.jobs import snapshot
from stackward.tools import btrfs, filesystem

FIRST = datetime(2026, 10, 5, tzinfo=ZONE)  # a Monday; on the 25th the clock goes back
NIGHTS = 35
SUNDAY = 6
AWAY = 7  # nights

KILLS = (
    *(("backup", f"data-{point}") for point in ("incoming", "snapshot", "copied", "manifest", "published")),
    *(("snapshot", "snapshot-made"), ("staging", "nightly-made"), ("staging", "nightly-swapped")),
)


@dataclass(frozen=True, slots=True)
class Mishap:
    """What happens in a night; `stack` to whom, `job` and `point` where it is killed."""

    kind: str = ""
    stack: str = ""
    job: str = ""
    point: str = ""


class Month:
    """Nights of a host, by dice; each step is followed by a look whether what is listed is what should be."""

    def __init__(self, host: LivingHost, seed: int) -> None:
        self.host, self.ledger = host, Ledger(host)
        self._dice = random.Random(seed)
        self._lives = Lives(host, seed)
        self._mishaps = drawn(self._dice)
        self._away_from = self._dice.randrange(7, 20)

    def pass_by(self) -> datetime:
        """All of it. Returns when it was over."""
        for number in range(NIGHTS):
            day = FIRST + timedelta(days=number)
            self._lives.go_on(8)
            self._leave_or_return("wiki", number)
            self._night(day, self._mishaps.get(number, Mishap()))
        return FIRST + timedelta(days=NIGHTS)

    def _leave_or_return(self, stack: str, number: int) -> None:
        if number == self._away_from:
            del self.host.stacks[stack]
        elif number == self._away_from + AWAY:
            self.host.stacks[stack] = self.host.all_stacks[stack]

    def _night(self, day: datetime, mishap: Mishap) -> None:
        if mishap.kind == "missed":
            return
        self._volume(at(day, 0, 30), mishap)
        self._lives.go_on(3)
        lost = mishap.stack if mishap.kind in ("emptied", "unmounted", "shrunk") else ""
        lost = lost if lost in self.host.stacks else ""
        with self._lost(lost, mishap.kind):
            self._chain(at(day, 2), "backup", mishap, lost)
            if day.weekday() == SUNDAY:
                if not lost:
                    self._lives.go_on(2)
                self._chain(at(day, 3), "backup-everything", mishap, lost)
            if lost and mishap.kind == "shrunk":
                self._accept(at(day, 9), lost)
        self._by_day(day, mishap)

    def _volume(self, now: datetime, mishap: Mishap) -> None:
        """What is done with the volume at night. What was killed is done again, or left to the next night."""
        self.ledger.remember(now)
        for job in ("snapshot", "staging"):
            if mishap.job == job:
                self.host.killed(job, now, mishap.point)
                if self._dice.random() < 0.5:
                    continue
            assert self.host.run(job, now).outcome is Outcome.OK
            if job == "snapshot":
                self.ledger.snapshots[f"{now:%Y%m%d_%H%M%S}"] = now.astimezone(UTC)
                self.ledger.thinned()
        (self.host.settings.volume / ".nightly/shop/of-staging").write_text("written by an instance")
        self.ledger.is_as_listed()

    def _chain(self, now: datetime, backup: str, mishap: Mishap, lost: str = "") -> None:
        """The nightly chain or the weekly one."""
        weekly = backup == "backup-everything"
        if mishap.job == "backup" and not weekly:
            self._killed_backup(now, mishap.point)
            if self._dice.random() < 0.5:
                return
            now += timedelta(minutes=20)
        self._back_up(now, backup, lost=lost)
        if mishap.kind == ("old rot" if weekly else "new rot"):
            self._rot(f"data-{now:%Y-%m-%d}", older=weekly)
        self._verify(now + timedelta(minutes=5), everything=weekly)
        if mishap.job == "prune" and not weekly:
            self.host.killed("prune", now + timedelta(minutes=10), mishap.point)
        self._prune(now + timedelta(minutes=12))

    def _back_up(self, now: datetime, job: str, *only: str, lost: str = "") -> None:
        self.ledger.remember(now, but=lost)
        result = self.host.run(job, now, only=only)
        chosen = set(only or self.host.stacks)
        expected = {stack: Outcome.FAILED if stack == lost else Outcome.OK for stack in chosen}
        assert {part.stack: part.outcome for part in result.stacks} == expected, result.stacks
        self.ledger.published(now, chosen - {lost})
        self.ledger.held = (self.ledger.held - chosen) | ({lost} - {""})
        self.ledger.is_as_listed()

    def _killed_backup(self, now: datetime, point: str) -> None:
        self.ledger.remember(now)
        self.host.killed("backup", now, point)
        if point in ("data-exchanged", "data-published"):
            self.ledger.published(now, self.host.stacks)
        self.ledger.is_as_listed()

    def _verify(self, now: datetime, *, everything: bool) -> None:
        result = self.host.run("verify-everything" if everything else "verify", now)
        found = {one["name"] for one in result.details["artifacts"] if one["damaged"]}
        assert found == {name for name, _ in self.ledger.damaged}, f"{self.ledger.damaged} at {now}"
        assert result.exit_code == (ExitCode.DAMAGED if found else ExitCode.OK)
        assert result.outcome is (Outcome.FAILED if found else Outcome.OK)

    def _prune(self, now: datetime) -> None:
        assert self.host.run("prune", now).outcome is Outcome.OK
        self.ledger.pruned(now)
        self.ledger.is_as_listed()

    def _by_day(self, day: datetime, mishap: Mishap) -> None:
        """What somebody does while the sun shines."""
        now = at(day, 14)
        if mishap.kind == "again":
            self._lives.go_on(3)
            if mishap.point:
                self._killed_backup(now, mishap.point)
            else:
                stacks = sorted(self.host.stacks)
                self._back_up(now, "backup", *self._dice.choice([(), stacks[:1], stacks[1:]]))
                self._verify(now, everything=False)
        elif mishap.kind == "labelled":
            self.ledger.remember(now)
            made = snapshot.create(settings=self.host.settings, now=now, label="before-upgrade")
            self.ledger.snapshots[made.artifacts[0]] = now.astimezone(UTC)
        elif mishap.kind == "back to a snapshot":
            name = self._dice.choice(sorted(self.ledger.snapshots))
            self.went_back_to_snapshot(name, mishap.stack, now)
        elif mishap.kind == "back to a backup":
            bad = {name for name, _ in self.ledger.damaged}
            name = self._dice.choice(sorted(self.ledger.backups[mishap.stack].keys() - bad))
            self.went_back_to_backup(name, mishap.stack, now)

    def went_back_to_snapshot(self, name: str, stack: str, now: datetime) -> None:
        """Trees that are not on the volume stay as they are."""
        volume = self.host.settings.volume
        self.host.restore_snapshot(stack, name, now)
        there = self.host.accounts(stack, below=volume)
        then = self.ledger.lived(stack, self.ledger.snapshots[name])
        same(there, {tree: then[tree] for tree in there})

    def went_back_to_backup(self, name: str, stack: str, now: datetime) -> None:
        self.host.restore(stack, name, now)
        same(self.host.accounts(stack), self.ledger.lived(stack, self.ledger.backups[stack][name]))

    def _accept(self, now: datetime, stack: str) -> None:
        self.host.store.accept(stack, now)
        self._back_up(now + timedelta(minutes=1), "backup", stack)
        self._verify(now + timedelta(minutes=2), everything=False)

    @contextmanager
    def _lost(self, stack: str, how: str) -> Iterator[None]:
        """Meanwhile the stack's first tree seems to be lost; afterwards it is there again."""
        if not stack:
            yield
            return
        place = self.host.all_stacks[stack].trees[0].path
        aside = place.with_name("aside")
        if how == "unmounted":
            place.rename(aside)
            yield
            aside.rename(place)
            return
        aside.mkdir()
        inside = [name for name in os.listdir(place) if how == "emptied" or name != "one"]
        for name in inside:
            (place / name).rename(aside / name)
        yield
        for name in inside:
            (aside / name).rename(place / name)
        aside.rmdir()

    def _rot(self, newest: str, *, older: bool) -> None:
        """A byte of the newest backup turns, or of an older one, and neither size nor time tell."""
        backups = {name for days in self.ledger.backups.values() for name in days}
        name = self._dice.choice(sorted(backups - {newest})) if older else newest
        turn_a_byte(self._dice, self.host.settings.backup_root / name, shared=older)
        self.ledger.damaged = self.ledger.differing()
        assert name in {one for one, _ in self.ledger.damaged}


def drawn(dice: random.Random) -> dict[int, Mishap]:
    """What goes wrong in which night: one thing at a time, and nothing at the beginning and at the end."""
    stacks = ("shop", "wiki", "mail")
    sundays = [night for night in range(NIGHTS) if (FIRST + timedelta(days=night)).weekday() == SUNDAY]
    rot, trash = dice.choice(sundays[1:-1]), dice.choice(sundays[1:-1]) + 2  # what was replaced goes two nights later
    mishaps = {rot: Mishap("old rot"), trash: Mishap(job="prune", point="prune-renamed")}
    others = [
        *(Mishap(job=job, point=point) for job, point in KILLS),
        *(Mishap("missed"), Mishap("missed"), Mishap("new rot"), Mishap("labelled")),
        *(Mishap("again"), Mishap("again"), Mishap("again", point="data-exchanged")),
        *(Mishap(kind, dice.choice(stacks[:2])) for kind in ("emptied", "shrunk")),
        *(Mishap(kind, dice.choice(stacks)) for kind in ("unmounted", "back to a snapshot", "back to a backup")),
    ]
    free = [night for night in range(3, NIGHTS - 2) if night not in mishaps and night not in sundays]
    return mishaps | dict(zip(dice.sample(free, len(others)), others, strict=True))


def at(day: datetime, hour: int, minute: int = 0) -> datetime:
    return day.replace(hour=hour, minute=minute)


def turn_a_byte(dice: random.Random, backup: Path, *, shared: bool) -> None:
    """In a file of some stack; unless it may be `shared`, in one that no older backup has, too."""
    files = sorted(path for path in backup.rglob("*") if path.is_file() and not path.is_symlink())
    whole = [one for one in files if one.stat().st_size and one.parent != backup]
    path = dice.choice([one for one in whole if shared or one.stat().st_nlink == 1])
    before = path.stat()
    is_subvolume = filesystem.is_subvolume(backup)
    if is_subvolume:
        btrfs.set_read_only(backup, read_only=False)
    with path.open("r+b") as file:
        first = file.read(1)[0]
        file.seek(0)
        file.write(bytes([first ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    if is_subvolume:
        btrfs.set_read_only(backup, read_only=True)


def same(found: Accounts, expected: Accounts) -> None:
    """Says which paths differ, where they do."""
    assert found.keys() == expected.keys()
    for tree, there in found.items():
        then = expected[tree]
        differing = sorted(path for path in there.keys() | then.keys() if there.get(path) != then.get(path))
        assert not differing, [(tree, path, there.get(path), then.get(path)) for path in differing[:5]]
