"""What is told of Btrfs, on file systems that are well and on one that lost a device."""

import subprocess
from pathlib import Path

import pytest

from stackward.tools import btrfs_health


@pytest.fixture
def degraded(tmp_path):
    """A mirror on two devices, one of which is not there."""
    images = [tmp_path / name for name in ("one.img", "other.img")]
    point = tmp_path / "mirror"
    point.mkdir()
    for image in images:
        subprocess.run(["truncate", "-s", "300M", image], check=True)
    subprocess.run(["mkfs.btrfs", "-q", "-d", "raid1", "-m", "raid1", *images], check=True)
    subprocess.run(["mount", "-o", "loop,degraded", images[0], point], check=True)
    yield point
    subprocess.run(["umount", point], check=True)


def test_a_file_system_that_is_well(volume):
    (device,) = btrfs_health.device_stats(volume)
    assert device.path.startswith("/dev/loop")
    assert device.total == 0
    assert len(device.errors) == 5
    assert btrfs_health.missing_devices(volume) == 0


def test_space_grows_and_shrinks_with_what_is_written(volume):
    for command in (["btrfs", "subvolume", "sync", volume], ["sync", "-f", volume]):  # what other tests have left
        subprocess.run(command, check=True, capture_output=True)
    before = btrfs_health.usage(volume)
    assert before.size == 2 << 30
    (volume / "large").write_bytes(bytes(64 << 20))
    subprocess.run(["sync", "-f", volume], check=True)
    after = btrfs_health.usage(volume)
    assert after.used - before.used >= 60 << 20  # the space of files that are gone may come free meanwhile
    assert after.allocated + after.unallocated == after.size


def test_a_device_that_is_gone_is_missing(degraded):
    assert btrfs_health.missing_devices(degraded) == 1


def test_what_is_no_btrfs_cannot_be_asked():
    with pytest.raises(OSError, match="ioctl"):
        btrfs_health.missing_devices(Path("/proc"))
