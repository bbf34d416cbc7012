"""A host whose trees live on from night to night, with its jobs as the week runs them, and ways to kill one at work."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from btrfs.life import Life, account
from btrfs.test_backup_data import Host
from stackward.core.model import JobResult, Outcome, Tree
from stackward.core.progress import Silent
from stackward.jobs import prune, restore, restore_snapshot, snapshot, verify
from stackward.steps import crashpoints
from stackward.steps.backup import in_place
from stackward.steps.restore import kept
from stackward.steps.restore.restoring import Means
from stackward.steps.undo import Undo
from stackward.steps.volume import nightly_snapshot
from stackward.tools import btrfs

ZONE = ZoneInfo("Europe/Berlin")
BALLAST = 15  # files that stay, so that no dice make a tree look lost

Account = dict[bytes, tuple[object, ...]]
Accounts = dict[str, Account]  # by the trees' mount names

_KILLED = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
from btrfs.living_host import work_until_killed
work_until_killed(*sys.argv[2:])
"""


class LivingHost(Host):
    """Three stacks: two trees in a subvolume, one directory of the volume's own, and a subvolume with a tree elsewhere."""

    def __init__(self, directory: Path, root: Path, volume: Path) -> None:
        super().__init__(directory, root, volume)
        self.directory = directory
        self.settings = replace(self.settings, zone=ZONE)
        for subvolume in (volume / "shop", volume / "mail"):
            if not subvolume.exists():
                btrfs.create_subvolume(subvolume)
        self.stack("shop", volume / "shop/data", volume / "shop/db")
        self.stack("wiki", volume / "plain/wiki/data")
        self.stack("mail", volume / "mail", directory / "elsewhere/queue")
        self.all_stacks = dict(self.stacks)

    @property
    def undo(self) -> Undo:
        return Undo(self.settings.state_dir / "undo", None)

    def accounts(self, stack: str, *, below: Path | None = None) -> Accounts:
        """Its trees as they are; with `below`, those of them that lie there."""
        trees = self.all_stacks[stack].trees
        return {tree.mount_name: sealed(tree.path) for tree in trees if not below or tree.path.is_relative_to(below)}

    def run(self, job: str, now: datetime, *, only: tuple[str, ...] = ()) -> JobResult:
        """A job of the week by its name, as its chain runs it."""
        if job in ("snapshot", "staging"):
            return self._of_the_volume(job, now)
        if job in ("verify", "verify-everything"):
            everything = job == "verify-everything"
            return verify.run(
                settings=self.settings, store=self.store, everything=everything, now=now, progress=Silent()
            )
        if job == "prune":
            return prune.run(
                settings=self.settings,
                store=self.store,
                discovery_stacks=list(self.stacks.values()),
                now=now,
                run_id=now.astimezone(UTC).strftime("%Y%m%d%H%M%S"),
                progress=Silent(),
            )
        kept.expire(self.settings.state_dir / "kept", now)
        point = self.settings.crash_point
        return self.back_up(now, *only, crash_point=point, full_scan=job == "backup-everything")

    def _of_the_volume(self, job: str, now: datetime) -> JobResult:
        if job == "snapshot":
            return snapshot.run(settings=self.settings, docker=None, now=now, progress=Silent())
        volume, point = self.settings.volume, self.settings.crash_point
        nightly_snapshot.rebuild_nightly(
            volume, nullcontext(), reached=lambda reached: crashpoints.reach(reached, point)
        )
        return JobResult(Outcome.OK)

    def killed(self, job: str, now: datetime, point: str) -> None:
        """Have the job killed at that crash point, and take back what it left, as the next start does."""
        tests = Path(__file__).parents[1]
        paths = json.dumps([str(tests), str(Path(prune.__file__).parents[2])])
        places = (self.directory, self.settings.backup_root, self.settings.volume)
        argv = [sys.executable, "-c", _KILLED, paths, *places, ",".join(self.stacks), job, now.isoformat(), point]
        died = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert died.returncode == -9, f"{job} was not killed at {point}: {died.stderr}"
        self.undo.take_back_open()
        assert self.undo.open_count() == 0

    def restore(self, stack: str, wanted: str, now: datetime, *, to: Path | None = None) -> JobResult:
        """From a backup, into place or to a directory."""
        request = restore.Request(stack, wanted=wanted, to=to, force=to is None)
        return restore.run(request, self._means(now), list(self.all_stacks.values()))

    def restore_snapshot(self, stack: str, wanted: str, now: datetime) -> JobResult:
        request = restore_snapshot.Request(wanted, stack, force=True)
        return restore_snapshot.run(request, self._means(now), list(self.all_stacks.values()))

    def _means(self, now: datetime) -> Means:
        run_id = f"{now:%Y%m%d%H%M%S}-{len(list(kept.records(self.settings.state_dir / 'kept')))}"
        return Means(self.settings, None, self.undo, now, run_id, Silent())


class Lives:
    """What goes on in all trees of a host: in each a random life, a file or two as databases have them, and some ballast."""

    def __init__(self, host: LivingHost, seed: int) -> None:
        self._dice = random.Random(seed)
        self._trees = [tree for stack in host.all_stacks.values() for tree in stack.trees]
        self._lives = [self._begun(tree, seed * 10 + number, host) for number, tree in enumerate(self._trees)]

    def go_on(self, steps: int) -> None:
        for tree, life in zip(self._trees, self._lives, strict=True):
            life.go_on(steps)
            for name in ("one", "two"):
                change_large(self._dice, tree.path / name)

    def _begun(self, tree: Tree, seed: int, host: LivingHost) -> Life:
        (tree.path / "life").mkdir()
        (tree.path / "ballast").mkdir()
        for number in range(BALLAST):
            (tree.path / f"ballast/{number}").write_text(f"{tree.mount_name} {number}")
        return Life(tree.path / "life", seed, of_extents=tree.path.is_relative_to(host.settings.volume))


def change_large(dice: random.Random, path: Path) -> None:
    """What databases and mailboxes do to a file that is large enough to be written in place in backups."""
    size = in_place.SMALLEST_BYTES
    what = dice.choice(
        ["places", "places", "places", "longer", "cut", "hole", "anew", "linked", "renamed", "left alone"]
    )
    if what == "anew" or not path.exists():
        path.unlink(missing_ok=True)
        path.write_bytes(dice.randbytes(size + dice.randrange(size // 2)))
    elif what == "linked":
        other = path.with_name(f"{path.name}-{dice.randrange(3)}")
        other.unlink(missing_ok=True)
        other.hardlink_to(path)
    elif what == "renamed":
        path.rename(path.with_name(f"{path.name}-{dice.randrange(3)}"))
    elif what == "hole":
        subprocess.run(["fallocate", "-p", "-o", "64KiB", "-l", "256KiB", path], check=True)
    elif what in ("places", "longer", "cut"):
        with path.open("r+b") as file:
            for _ in range(dice.randrange(1, 5)):
                file.seek(dice.randrange(size))
                file.write(dice.randbytes(dice.choice([1, 4096, 20_000])))
            if what != "places":
                file.truncate(size + dice.randrange(size // 2) * (1 if what == "longer" else -1))


def sealed(directory: Path) -> Account:
    """The account of a tree, with digests for contents, so that a month of them can be remembered."""
    return {path: (*of[:5], _digest(of[5]), *of[6:]) for path, of in account(directory).items()}


def _digest(content: object) -> object:
    return hashlib.sha256(content).digest() if isinstance(content, bytes) else content


def work_until_killed(directory: str, root: str, volume: str, stacks: str, job: str, now: str, point: str) -> None:
    """In a process of its own: the job, with a crash point."""
    host = LivingHost(Path(directory), Path(root), Path(volume))
    host.settings = replace(host.settings, crash_point=point)
    host.stacks = {name: host.stacks[name] for name in stacks.split(",")}
    host.run(job, datetime.fromisoformat(now).astimezone(ZONE))
    os._exit(0)
