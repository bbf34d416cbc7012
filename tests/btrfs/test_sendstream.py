"""The reader of send streams, on streams that Btrfs wrote: it reads them to the end, or says that they are not right."""

from __future__ import annotations

import io
import os
import struct
import subprocess
from pathlib import Path

import google_crc32c
import pytest

from btrfs.life import Life
from stackward.tools import btrfs, sendstream
from stackward.tools.sendstream import Command, Kind, SendStreamError

pytestmark = pytest.mark.btrfs


@pytest.fixture
def pair(volume: Path) -> tuple[Path, Path]:
    """Two read-only snapshots of a subvolume, and a bit of life between them."""
    live, old, new = volume / "live", volume / "old", volume / "new"
    btrfs.create_subvolume(live)
    for name in ("kept", "gone", "moved", "owned"):
        (live / name).write_text(name)
    (live / "directory").mkdir()
    btrfs.snapshot(live, old, read_only=True)
    (live / "gone").unlink()
    (live / "moved").rename(live / "directory/moved")
    (live / "new\nline").write_text("new")
    os.chown(live / "owned", 1, 2)
    os.setxattr(live / "kept", "user.note", b"n")
    os.link(live / "kept", live / "linked")
    btrfs.snapshot(live, new, read_only=True)
    return old, new


@pytest.fixture
def stream(pair: tuple[Path, Path]) -> bytes:
    return sent(*pair)


def sent(old: Path, new: Path, *options: str) -> bytes:
    argv = ["btrfs", "send", "--quiet", "--no-data", *(options or ("--proto", "1")), "-p", old, new]
    return subprocess.run(argv, check=True, capture_output=True).stdout


def read(stream: bytes) -> list[Command]:
    return list(sendstream.read(io.BytesIO(stream)))


def command(number: int, *attributes: tuple[int, bytes]) -> bytes:
    body = b"".join(struct.pack("<HH", kind, len(value)) + value for kind, value in attributes)
    whole = struct.pack("<IHI", len(body), number, 0) + body
    checksum = google_crc32c.extend(0xFFFFFFFF, whole) ^ 0xFFFFFFFF
    return struct.pack("<IHI", len(body), number, checksum) + body


def test_a_stream_tells_what_changed(pair: tuple[Path, Path], stream: bytes) -> None:
    told = read(stream)
    assert told == list(sendstream.changes_between(*pair))
    kinds = {(one.kind, one.path) for one in told}
    assert {(Kind.UNLINK, b"gone"), (Kind.CHOWN, b"owned"), (Kind.SET_XATTR, b"kept")} <= kinds
    assert any(one.kind is Kind.RENAME and one.other == b"new\nline" for one in told)
    assert any(one.kind is Kind.LINK and (one.path, one.other) == (b"linked", b"kept") for one in told)


def test_a_stream_cut_short_anywhere_is_refused(stream: bytes) -> None:
    for length in range(len(stream)):
        with pytest.raises(SendStreamError):
            read(stream[:length])


def test_a_flipped_bit_anywhere_is_found(stream: bytes) -> None:
    for position in range(len(stream)):
        for bit in range(8):
            flipped = bytearray(stream)
            flipped[position] ^= 1 << bit
            with pytest.raises(SendStreamError):
                read(bytes(flipped))


def test_what_follows_the_end_is_refused(stream: bytes) -> None:
    with pytest.raises(SendStreamError, match="goes on"):
        read(stream + b"\0")


@pytest.mark.parametrize("version", [0, 2, 3, 1 << 31])
def test_a_protocol_that_is_not_known_is_refused(stream: bytes, version: int) -> None:
    with pytest.raises(SendStreamError, match=f"protocol {version}"):
        read(stream[:13] + struct.pack("<I", version) + stream[17:])


def test_a_stream_of_the_second_protocol_as_btrfs_writes_it_is_refused(pair: tuple[Path, Path]) -> None:
    with pytest.raises(SendStreamError, match="protocol 2"):
        read(sent(*pair, "--proto", "2"))


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (command(23, (15, b"a")), "unknown command 23"),
        (command(0), "unknown command 0"),
        (command(17, (15, b"a"), (4, b"\1\0\0\0")), "number"),
        (command(22, (15, b"a"), (18, b"\0" * 9), (4, b"\0" * 8)), "number"),
        (command(10, (15, b"a"))[:-5] + b"x" * 5, "checksum"),
        (command(3), "names no path"),
        (command(9, (15, b"a")), "names no path"),
        (command(10, (15, b"a")), "names no path"),
        (struct.pack("<IHI", 1 << 30, 3, 0), "damaged"),
    ],
)
def test_commands_that_are_whole_but_make_no_sense_are_refused(stream: bytes, told: bytes, why: str) -> None:
    with pytest.raises(SendStreamError, match=why):
        read(stream[:17] + told + command(21))


def test_an_attribute_that_is_longer_than_its_command_is_refused(stream: bytes) -> None:
    body = struct.pack("<HH", 15, 9) + b"a"
    checksum = google_crc32c.extend(0xFFFFFFFF, struct.pack("<IHI", len(body), 3, 0) + body) ^ 0xFFFFFFFF
    with pytest.raises(SendStreamError, match="attribute is cut short"):
        read(stream[:17] + struct.pack("<IHI", len(body), 3, checksum) + body)


def test_nothing_is_told_between_snapshots_that_are_equal(volume: Path) -> None:
    btrfs.create_subvolume(volume / "live")
    Life(volume / "live", 1).go_on(30)
    for name in ("old", "new"):
        btrfs.snapshot(volume / "live", volume / name, read_only=True)
    told = list(sendstream.changes_between(volume / "old", volume / "new"))
    assert {one.kind for one in told} <= {Kind.SNAPSHOT, Kind.UTIMES}
