"""Single files and directories are copied with all that rsync would keep."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
from pathlib import Path

import pytest

from stackward.steps.backup import direct_copy
from stackward.tools import rsync

pytestmark = pytest.mark.btrfs
_CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)  # linux/capability.h, vfs_cap_data: cap_net_raw+ep


def run(*argv: str | Path) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def everything_of(path: Path) -> dict[str, object]:
    found = os.lstat(path)
    return {
        "mode": oct(found.st_mode),
        "owner": (found.st_uid, found.st_gid),
        "time": found.st_mtime_ns,
        "attributes": {name: os.getxattr(path, name) for name in os.listxattr(path)},
    }


@pytest.fixture
def one(volume: Path) -> Path:
    """A file that has everything: holes at both ends and between, a setuid bit, a capability, ACLs, attributes."""
    path = volume / "one"
    with open(path, "wb") as file:
        file.truncate(3 << 20)
        for offset in (1 << 20, (2 << 20) - 4096):
            file.seek(offset)
            file.write(os.urandom(5000))
    os.chown(path, 1234, 5678)
    os.setxattr(path, "security.capability", _CAPABILITY)
    run("setfacl", "-m", "u:42:rw,g:43:r,m:rwx", path)
    for name in ("user.note", "trusted.note", "security.note"):
        os.setxattr(path, name, os.urandom(40))
    os.chmod(path, 0o4751)
    os.utime(path, ns=(1, 1_234_567_890_123_456_789))
    return path


def test_a_copy_is_what_rsync_would_have_made(one: Path, btrfs_root: Path) -> None:
    mine, theirs = btrfs_root / "mine", btrfs_root / "theirs"
    mine.mkdir()
    rsync.copy(one.parent, theirs, filters=["+ /one", "- *"])
    digest, written = direct_copy.copy_file(os.fsencode(one), os.fsencode(mine / "one"))
    assert everything_of(mine / "one") == everything_of(theirs / "one") == everything_of(one)
    assert (mine / "one").read_bytes() == one.read_bytes()
    assert digest == hashlib.sha256(one.read_bytes()).hexdigest()
    assert written < 20_000
    assert os.stat(mine / "one").st_blocks * 512 < 30_000


def test_what_was_there_goes_and_its_other_names_stay(one: Path, btrfs_root: Path) -> None:
    target, other = btrfs_root / "target", btrfs_root / "other"
    target.write_bytes(b"of the last backup")
    os.link(target, other)
    direct_copy.copy_file(os.fsencode(one), os.fsencode(target))
    assert other.read_bytes() == b"of the last backup"
    assert everything_of(target) == everything_of(one)


def test_nothing_is_inherited_from_where_it_is_copied_to(one: Path, btrfs_root: Path) -> None:
    home = btrfs_root / "home"
    home.mkdir()
    run("setfacl", "-d", "-m", "u:99:rwx", home)
    plain = one.with_name("plain")
    plain.write_text("no ACL")
    direct_copy.copy_file(os.fsencode(plain), os.fsencode(home / "plain"))
    assert everything_of(home / "plain") == everything_of(plain)


def test_a_directory_gets_its_attributes_and_loses_others(one: Path, btrfs_root: Path) -> None:
    source, target = one.with_name("directory"), btrfs_root / "directory"
    source.mkdir(mode=0o700)
    run("setfacl", "-d", "-m", "u:7:rx", source)
    os.setxattr(source, "trusted.note", b"x")
    os.chmod(source, 0o3771)
    os.utime(source, ns=(5, 5))
    target.mkdir(mode=0o700)
    os.setxattr(target, "user.stale", b"x")
    direct_copy.take_attributes(os.fsencode(source), os.fsencode(target))
    assert everything_of(target) == everything_of(source)


def test_zeros_take_no_room(volume: Path, btrfs_root: Path) -> None:
    source, target = volume / "zeros", btrfs_root / "zeros"
    source.write_bytes(bytes(3_000_000) + b"end")
    digest, written = direct_copy.copy_file(os.fsencode(source), os.fsencode(target))
    assert target.read_bytes() == source.read_bytes()
    assert digest == hashlib.sha256(source.read_bytes()).hexdigest()
    assert written < 200_000
    assert os.stat(target).st_blocks * 512 < 200_000


def test_an_empty_file_and_one_of_holes_only(volume: Path, btrfs_root: Path) -> None:
    for name, size in (("empty", 0), ("holes", 5_000_000)):
        with open(volume / name, "wb") as file:
            file.truncate(size)
        digest, written = direct_copy.copy_file(os.fsencode(volume / name), os.fsencode(btrfs_root / name))
        assert (written, os.stat(btrfs_root / name).st_size) == (0, size)
        assert digest == hashlib.sha256(bytes(size)).hexdigest()
        assert os.stat(btrfs_root / name).st_blocks == 0
