"""A last backup that is not what it was: what was damaged, lost or written to in it gets into no later one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from btrfs.test_backup_data import (  # noqa: F401 - fixtures
    NIGHT,
    Host,
    account,
    check_sums,
    host,
    place,
    root,
    rot,
    scans,
)
from stackward.core.errors import ExitCode
from stackward.core.model import Outcome
from stackward.core.progress import Silent
from stackward.jobs import verify
from stackward.steps.backup.day import read_index
from stackward.tools import btrfs

pytestmark = pytest.mark.btrfs
DAY = timedelta(days=1)


@contextmanager
def writable(backup: Path) -> Iterator[Path]:
    """As an administrator would go about it."""
    is_subvolume = backup.stat().st_ino == 256

    def set_read_only(value: str) -> None:
        if is_subvolume:
            subprocess.run(["btrfs", "property", "set", "-f", "-t", "subvol", backup, "ro", value], check=True)

    set_read_only("false")
    yield backup
    set_read_only("true")


@pytest.fixture
def data(host: Host, place: Path) -> Path:  # noqa: F811
    """A stack `a` with two backups, and one called `b`."""
    for name in ("a", "b"):
        host.stack(name, place / name)
        for number in range(200):
            (place / name / f"file{number:03}").write_text(f"{name}{number}")
    host.back_up()
    (place / "a/file100").write_text("changed")
    host.back_up(NIGHT + DAY)
    return place / "a"


def test_a_part_that_somebody_removed_is_copied_again(host: Host, root: Path, data: Path) -> None:  # noqa: F811
    with writable(root / "data-2026-11-22") as last:
        subprocess.run(["rm", "-r", last / "a"], check=True)
    assert host.back_up(NIGHT + 2 * DAY).outcome is Outcome.OK
    assert account(root / "data-2026-11-23/a") == account(data)
    assert check_sums(root / "data-2026-11-23").returncode == 0


def test_what_somebody_wrote_into_the_last_backup_is_not_handed_on(
    host: Host,  # noqa: F811
    root: Path,  # noqa: F811
    data: Path,
) -> None:
    last = root / "data-2026-11-22"
    if last.stat().st_ino != 256:
        pytest.skip("only of a subvolume is it seen")
    subprocess.run(["btrfs", "property", "set", "-f", "-t", "subvol", last, "ro", "false"], check=True)
    rot(last / "a/file007", last)
    subprocess.run(["btrfs", "property", "set", "-f", "-t", "subvol", last, "ro", "false"], check=True)
    result = host.back_up(NIGHT + 2 * DAY)
    assert "its last backup was written to" in str(scans(result))
    assert account(root / "data-2026-11-23/a") == account(data)
    assert check_sums(root / "data-2026-11-23").returncode == 0


@pytest.mark.parametrize("how", ["no manifest", "no digest", "no line", "cut short"])
@pytest.mark.parametrize("full_scan", [False, True], ids=["nightly", "full scan"])
def test_checksums_that_cannot_be_read_stop_nobody(
    host: Host,  # noqa: F811
    root: Path,  # noqa: F811
    data: Path,
    how: str,
    full_scan: bool,
) -> None:
    with writable(root / "data-2026-11-22") as last:
        manifest = last / "MANIFEST.sha256"
        lines = manifest.read_bytes().splitlines(keepends=True)
        manifest.unlink()
        at = len(lines) // 4
        if how == "no digest":
            lines[at] = b"x" + lines[at][1:]
        elif how == "no line":
            lines[at] = lines[at][:30] + b"\n" + lines[at][31:]
        elif how == "cut short":
            lines = [*lines[:at], lines[at][:40]]
        if how != "no manifest":
            manifest.write_bytes(b"".join(lines))
    for number in range(40, 60):
        (data / f"file{number:03}").write_text("new")
    result = host.back_up(NIGHT + 2 * DAY, full_scan=full_scan)
    assert {part.outcome for part in result.stacks} == {Outcome.OK}
    assert account(root / "data-2026-11-23/a") == account(data)
    assert check_sums(root / "data-2026-11-23").returncode == 0
    if how == "no manifest":
        assert all("checksums of its last backup cannot be read" in why for why in scans(result))


@pytest.mark.parametrize("how", ["no manifest", "no digest"])
def test_one_stacks_day_is_made_again_where_the_others_checksums_cannot_be_read(
    host: Host,  # noqa: F811
    root: Path,  # noqa: F811
    data: Path,
    how: str,
) -> None:
    with writable(root / "data-2026-11-22") as last:
        lines = (last / "MANIFEST.sha256").read_bytes()
        (last / "MANIFEST.sha256").unlink()
        if how == "no digest":
            at = lines.index(b"  b/file007")
            (last / "MANIFEST.sha256").write_bytes(lines[: at - 1] + b"x" + lines[at:])
    result = host.back_up(NIGHT + DAY + timedelta(hours=1), "a")
    assert result.stacks[0].outcome is Outcome.OK
    assert result.reasons == ("data-2026-11-22, b: its checksums could not be read and were made anew",)
    index = read_index(root / "data-2026-11-22")
    assert index is not None
    assert (index.stacks["a"].incomplete, bool(index.stacks["b"].incomplete)) == ("", True)
    assert account(root / "data-2026-11-22/a") == account(data)
    assert account(root / "data-2026-11-22/b") == account(data.parent / "b")
    assert check_sums(root / "data-2026-11-22").returncode == 0


def test_a_day_that_lost_its_index_keeps_the_other_stacks(host: Host, root: Path, data: Path) -> None:  # noqa: F811
    with writable(root / "data-2026-11-22") as last:
        (last / "stackward.json").unlink()
        (last / ".dumps/b").mkdir(parents=True)
        (last / ".dumps/b/db.sql.gz").write_bytes(b"dump")
    result = host.back_up(NIGHT + DAY + timedelta(hours=1), "a")
    assert result.outcome is Outcome.WARN
    assert "data-2026-11-22, b: stackward.json was not there" in result.reasons[0]
    for stack in ("a", "b"):
        assert account(root / "data-2026-11-22" / stack) == account(data.parent / stack)
    assert (root / "data-2026-11-22/.dumps/b/db.sql.gz").read_bytes() == b"dump"
    assert check_sums(root / "data-2026-11-22").returncode == 0


def test_what_was_made_anew_is_not_damaged_by_what_it_replaced(host: Host, root: Path, data: Path) -> None:  # noqa: F811
    with writable(root / "data-2026-11-22") as last:
        (last / "stackward.json").unlink()
    found = verify.run(settings=host.settings, store=host.store, everything=True, now=NIGHT, progress=Silent())
    assert found.exit_code == ExitCode.DAMAGED
    host.back_up(NIGHT + DAY + timedelta(hours=1))
    assert "data-2026-11-22" not in host.store.verified()


def test_damage_of_a_backup_that_somebody_removed_is_handed_on_by_none(
    host: Host,  # noqa: F811
    root: Path,  # noqa: F811
    data: Path,
) -> None:
    def verified(night: int, *names: str) -> int:
        at = NIGHT + night * DAY
        return verify.run(settings=host.settings, store=host.store, names=names, now=at, progress=Silent()).exit_code

    assert verified(1, "data-2026-11-21") == ExitCode.OK
    for night in host.listed():
        with writable(root / night) as backup:
            rot(backup / "a/file007", backup)
    assert verified(2, "data-2026-11-22") == ExitCode.DAMAGED
    btrfs.delete_directory(root / "data-2026-11-22")
    assert host.back_up(NIGHT + 2 * DAY).outcome is Outcome.OK
    assert account(root / "data-2026-11-23/a") == account(data)
    assert check_sums(root / "data-2026-11-23").returncode == 0


def test_after_a_night_with_the_clock_ahead_everything_is_compared(
    host: Host,  # noqa: F811
    root: Path,  # noqa: F811
    data: Path,
) -> None:
    ahead = NIGHT + timedelta(days=2)
    host.back_up(ahead)
    before = (data / "file007").stat()
    (data / "file007").write_text("A7")
    os.utime(data / "file007", ns=(before.st_atime_ns, before.st_mtime_ns))
    for hours in (21, 22):
        result = host.back_up(NIGHT + timedelta(days=1, hours=hours))
        assert result.outcome is Outcome.OK
        assert account(root / "data-2026-11-22/a") == account(data)


@pytest.mark.parametrize("changed", [False, True], ids=["unchanged since", "changed since"])
def test_damage_that_older_backups_share_is_handed_on_by_none(
    host: Host,  # noqa: F811
    root: Path,  # noqa: F811
    data: Path,
    changed: bool,
) -> None:
    """The same blocks are damaged in both; only the newest has been read since."""
    for night in host.listed():
        with writable(root / night) as backup:
            rot(backup / "a/file007", backup)
    name = "data-2026-11-22"
    found = verify.run(settings=host.settings, store=host.store, names=[name], now=NIGHT, progress=Silent())
    assert found.exit_code == ExitCode.DAMAGED
    if changed:
        os.utime(data / "file100")
    for night in (2, 3):
        assert host.back_up(NIGHT + night * DAY).outcome is Outcome.OK
        newest = root / host.listed()[-1]
        assert account(newest / "a") == account(data)
        assert check_sums(newest).returncode == 0
