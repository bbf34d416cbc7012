"""Real Btrfs on loop devices, one pair a session; each test gets directories of its own on them."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from btrfs.capabilities import as_the_appliance
from unit.conftest import api, image, needs_compose  # noqa: F401 - for tests with containers


def _mounted(directory: Path, name: str, size: str) -> Path:
    disk, point = directory / f"{name}.img", directory / name
    subprocess.run(["truncate", "-s", size, disk], check=True)
    subprocess.run(["mkfs.btrfs", "-q", disk], check=True, capture_output=True)
    point.mkdir()
    subprocess.run(["mount", "-o", "loop", disk, point], check=True)
    return point


def _unmount(point: Path) -> None:
    """Let go of a disk; while something still looks at it (a container that just started), wait, then let go lazily."""
    for _ in range(20):
        if subprocess.run(["umount", point], check=False, capture_output=True).returncode == 0:
            return
        time.sleep(0.25)
    subprocess.run(["umount", "--lazy", point], check=True)


@pytest.fixture(scope="session")
def btrfs_disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    directory = tmp_path_factory.mktemp("disks")
    points = []
    try:
        points += [_mounted(directory, name, "2G") for name in ("volume", "backup")]
        yield points[0], points[1]
    finally:
        for point in points:
            _unmount(point)


@pytest.fixture(autouse=True)
def _no_more_than_the_appliance_may() -> Iterator[None]:
    with as_the_appliance():
        yield


@pytest.fixture
def volume(btrfs_disks: tuple[Path, Path]) -> Iterator[Path]:
    """The whole volume; what a test leaves on it is removed."""
    yield btrfs_disks[0]
    _clear(btrfs_disks[0])


@pytest.fixture
def btrfs_root(btrfs_disks: tuple[Path, Path]) -> Iterator[Path]:
    """A BACKUP_ROOT of the test's own on the second disk."""
    path = btrfs_disks[1] / uuid.uuid4().hex
    path.mkdir()
    yield path
    _clear(path)


def _clear(directory: Path) -> None:
    for entry in sorted(directory.iterdir()):
        _delete(entry)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        if path.lstat().st_ino == 256:
            subprocess.run(["btrfs", "property", "set", "-t", "subvol", path, "ro", "false"], check=True)
        for entry in path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                _delete(entry)
        if path.lstat().st_ino == 256:
            subprocess.run(["btrfs", "subvolume", "delete", path], check=True, capture_output=True)
            return
    subprocess.run(["rm", "-rf", "--", path], check=True)
