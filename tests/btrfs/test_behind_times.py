"""Content that changed while a file's size and modification time did not: every way to hide that from a scan by those."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from btrfs.test_backup_data import Host, account, check_sums, host, place, root  # noqa: F401 - fixtures
from stackward.core.model import Outcome

pytestmark = pytest.mark.btrfs


def rewrite(file: Path) -> None:
    """The same size, the same time."""
    before = file.stat()
    with file.open("r+b") as opened:
        opened.write(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def mode(data: Path) -> None:
    rewrite(data / "file")
    (data / "file").chmod(0o600)


def owner(data: Path) -> None:
    rewrite(data / "file")
    os.chown(data / "file", 1234, 4321)


def access_list(data: Path) -> None:
    rewrite(data / "file")
    subprocess.run(["setfacl", "-m", "u:1234:rw", data / "file"], check=True)


def attribute(data: Path) -> None:
    rewrite(data / "file")
    os.setxattr(data / "file", "user.note", b"new")


def name_before(data: Path) -> None:
    rewrite(data / "file")
    os.link(data / "file", data / "a name")


def name_after(data: Path) -> None:
    rewrite(data / "file")
    os.link(data / "file", data / "the other name")


def one_name_less(data: Path) -> None:
    rewrite(data / "one of two")
    (data / "the second").unlink()


def several_names_and_mode(data: Path) -> None:
    rewrite(data / "one of two")
    (data / "the second").chmod(0o600)


def parted(data: Path) -> None:
    shutil.copy2(data / "one of two", data / "copy")
    (data / "copy").rename(data / "the second")


def parted_and_mode(data: Path) -> None:
    parted(data)
    (data / "the second").chmod(0o600)


def name_that_was_anothers(data: Path) -> None:
    (data / "file").rename(data / "file.old")
    (data / "twin").rename(data / "file")


def directories(data: Path) -> None:
    (data / "current").rename(data / "old")
    (data / "next").rename(data / "current")


def directories_within(data: Path) -> None:
    (data / "old").mkdir()
    (data / "deep/er/current").rename(data / "old/current")
    (data / "deep/er/next").rename(data / "deep/er/current")


def tree_itself(data: Path) -> None:
    other = data.with_name("other")
    shutil.copytree(data, other)
    rewrite(other / "file")
    for path in (".", "current", "next", "deep"):
        os.utime(other / path, ns=(0, (data / path).stat().st_mtime_ns))
    data.rename(data.with_name("bad"))
    other.rename(data)


WAYS = [
    mode, owner, access_list, attribute, name_before, name_after, one_name_less, several_names_and_mode,
    parted, parted_and_mode, name_that_was_anothers, directories, directories_within,
    tree_itself,
]  # fmt: skip


@pytest.mark.parametrize("full_scan", [False, True], ids=["nightly", "full scan"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_changed_behind_its_time_is_in_the_backup(
    host: Host,  # noqa: F811
    root: Path,  # noqa: F811
    place: Path,  # noqa: F811
    way: Callable[[Path], None],
    full_scan: bool,
) -> None:
    data = place / "a"
    host.stack("a", data)
    for name in ("file", "twin", "one of two"):
        (data / name).write_bytes(b"one" if name != "twin" else b"ano")
        os.utime(data / name, ns=(0, 0))
    os.link(data / "one of two", data / "the second")
    for above in (data, data / "deep/er"):
        for name in ("current", "next"):
            (above / name / "sub").mkdir(parents=True)
            (above / name / "sub/file").write_bytes(name[:3].encode())
            for path in ("sub/file", "sub", "."):
                os.utime(above / name / path, ns=(0, 0))
    first = datetime.now(UTC) + timedelta(seconds=1)  # what was stamped more than a second before it is not looked at
    host.back_up(first)
    way(data)
    second = host.back_up(first + timedelta(days=1), full_scan=full_scan)
    assert second.outcome is Outcome.OK
    if way in (mode, name_after, several_names_and_mode):
        assert second.counts.bytes_changed >= 3
    host.back_up(first + timedelta(days=2))
    for night in host.listed()[1:]:
        assert account(root / night / "a") == account(data)
        assert check_sums(root / night).returncode == 0
