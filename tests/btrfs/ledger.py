"""What was, and what there should be of it: kept by the test from what it did, never from what the jobs say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from btrfs.living_host import ZONE, Accounts, LivingHost, sealed
from stackward.core.index import Index
from stackward.steps.backup.day import read_index
from stackward.steps.volume import snapshots

DAILY, WEEKLY = 7, 4  # as the settings' default says
YOUNG = timedelta(hours=24)


class Ledger:
    """`backups` are the instants (UTC) at which stacks stood still for what is listed, by stack and day."""

    def __init__(self, host: LivingHost) -> None:
        self._host = host
        self._lived: dict[tuple[str, datetime], Accounts] = {}
        self.backups: dict[str, dict[str, datetime]] = {stack: {} for stack in host.all_stacks}
        self.snapshots: dict[str, datetime] = {}
        self.damaged: set[tuple[str, str]] = set()  # backup, stack
        self.held: set[str] = set()

    def remember(self, now: datetime, but: str = "") -> None:
        """How the trees are at this moment, but for those of a stack that has just lost one."""
        for stack in self._host.all_stacks.keys() - {but}:
            self._lived[stack, now.astimezone(UTC)] = self._host.accounts(stack)

    def lived(self, stack: str, at: datetime) -> Accounts:
        return self._lived[stack, at.astimezone(UTC)]

    def published(self, now: datetime, stacks: Iterable[str]) -> None:
        for stack in stacks:
            self.backups[stack][f"data-{now:%Y-%m-%d}"] = now.astimezone(UTC)

    def listed(self) -> dict[str, Index]:
        """The indexes of all listed backups, also of those that were replaced."""
        found = {name: read_index(self._host.settings.backup_root / name) for name in self._host.listed()}
        return {name: index for name, index in found.items() if index is not None}

    def is_as_listed(self) -> None:
        """Each stack is listed with the days that it should have, none of them later or earlier than it was made."""
        assert self._by_stack() == self.backups
        taken = {one.name: one.when.astimezone(UTC) for one in snapshots.listed(self._host.settings.volume, ZONE)}
        assert taken == self.snapshots

    def pruned(self, now: datetime) -> None:
        """What retention promises is there, and nothing else but what it says that it keeps in doubt."""
        for stack, after in self._by_stack().items():
            before = self.backups[stack]
            assert after.items() <= before.items()
            if stack in self.held or stack not in self._host.stacks:
                assert after == before, f"{stack} is held or gone, and lost {before.keys() - after.keys()}"
                continue
            bad = {name for name, of in self.damaged if of == stack}
            must = promised({name: at for name, at in before.items() if name not in bad})
            young = {name for name, at in before.items() if now.astimezone(UTC) - at < YOUNG}
            assert must <= after.keys(), f"{stack} lost {must - after.keys()} at {now}"
            assert after.keys() <= must | young | bad, f"{stack} kept {after.keys() - must - young} at {now}"
            self.backups[stack] = after
        left = self.listed()
        self.damaged = {(name, stack) for name, stack in self.damaged if name in left and stack in left[name].stacks}

    def thinned(self) -> None:
        """The same of snapshots; those with a label stay in any case, and take no other's place."""
        labelled = {name for name in self.snapshots if "-" in name}
        stay = promised({name: at for name, at in self.snapshots.items() if name not in labelled}) | labelled
        self.snapshots = {name: self.snapshots[name] for name in stay}

    def differing(self) -> set[tuple[str, str]]:
        """The backups, and which stacks in them, that are no longer what was lived."""
        root = self._host.settings.backup_root
        return {
            (name, stack)
            for name, index in self.listed().items()
            for stack, entry in index.stacks.items()
            if {tree.mount_name: sealed(root / name / tree.path) for tree in entry.trees}
            != self.lived(stack, datetime.fromisoformat(entry.at))
        }

    def _by_stack(self) -> dict[str, dict[str, datetime]]:
        found: dict[str, dict[str, datetime]] = {stack: {} for stack in self.backups}
        for name, index in self.listed().items():
            for stack, entry in index.stacks.items() if "replaced" not in name else ():
                found[stack][name] = datetime.fromisoformat(entry.at)
        return found


def promised(made: Mapping[str, datetime]) -> set[str]:
    """The newest of each of the last seven days and four weeks that have one."""
    stay: set[str] = set()
    ordered = sorted(made, key=lambda name: made[name], reverse=True)
    for count, pattern in ((DAILY, "%Y-%m-%d"), (WEEKLY, "%G-%V")):
        newest: dict[str, str] = {}
        for name in ordered:
            newest.setdefault(made[name].astimezone(ZONE).strftime(pattern), name)
        stay |= set(list(newest.values())[:count])
    return stay


def left_over(host: LivingHost, ledger: Ledger) -> list[str]:
    """What lies where backups and snapshots are kept, and is neither listed nor needed for the next backup."""
    root, ours = host.settings.backup_root, host.settings.volume / ".stackward"
    newest = {stack: max(days, key=lambda name: days[name]) for stack, days in ledger.backups.items()}
    entries = [ledger.listed()[name].stacks[stack] for stack, name in newest.items()]
    needed = {tree.snapshot_name for entry in entries for tree in entry.trees}
    known = {
        root: {".stackward-id", *ledger.listed()},
        ours: {"backup", "snapshots"},
        ours / "backup": needed,
        ours / "snapshots": set(ledger.snapshots),
    }
    found = [str(path) for home, names in known.items() for path in home.iterdir() if path.name not in names]
    for name, index in ledger.listed().items():
        known_here = {"MANIFEST.sha256", "stackward.json", ".mounts", *index.stacks}
        found += [str(path) for path in (root / name).iterdir() if path.name not in known_here]
        found += [str(path) for path in _mounts(root / name) if path.name not in index.stacks]
    return found


def _mounts(backup: Path) -> Iterable[Path]:
    mounts = backup / ".mounts"
    return mounts.iterdir() if mounts.is_dir() else ()
