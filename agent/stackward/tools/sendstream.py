"""Reads Btrfs's send stream, protocol 1: what has changed between two read-only snapshots.

Format: fs/btrfs/send.h of Linux. "btrfs-stream" and a zero byte, then the version (le32); then commands, each of length (le32, of
the attributes), number (le16) and CRC-32C (le32, seed 0, over the whole command with that field zero); attributes are type
(le16), length (le16) and value, in any order. With `--no-data`, UPDATE_EXTENT stands where WRITE would.

Paths are relative to the subvolume, as they are at that point of the stream: new inodes appear under names of the form
`oINO-GEN-SEQ` and are renamed later.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import IO

import google_crc32c

from stackward.core.errors import StackwardError
from stackward.tools import process

VERSION = 1
_MAGIC = b"btrfs-stream\0"
_HEADER = struct.Struct("<IHI")
_ATTRIBUTE = struct.Struct("<HH")
_NUMBER = struct.Struct("<Q")
_LONGEST = 1 << 20  # no command of protocol 1 comes near it: a greater length is damage
_INVERTED = 0xFFFFFFFF  # the kernel neither begins nor ends its CRC with an inversion, the library does both


class SendStreamError(StackwardError):
    """The stream is cut short, damaged, or of a kind that we do not know: nothing it said may be relied on."""


class Kind(IntEnum):
    """Commands of protocol 1, and the ones that every stream frames them with."""

    SUBVOL = 1
    SNAPSHOT = 2
    MKFILE = 3
    MKDIR = 4
    MKNOD = 5
    MKFIFO = 6
    MKSOCK = 7
    SYMLINK = 8
    RENAME = 9
    LINK = 10
    UNLINK = 11
    RMDIR = 12
    SET_XATTR = 13
    REMOVE_XATTR = 14
    WRITE = 15
    CLONE = 16
    TRUNCATE = 17
    CHMOD = 18
    CHOWN = 19
    UTIMES = 20
    END = 21
    UPDATE_EXTENT = 22


_OF_TWO_NAMES = frozenset({Kind.RENAME, Kind.LINK})
# The last five may mean the subvolume's own directory, whose path is empty.
_MAY_BE_NAMELESS = frozenset(
    {Kind.SUBVOL, Kind.SNAPSHOT, Kind.END, Kind.SET_XATTR, Kind.REMOVE_XATTR, Kind.CHMOD, Kind.CHOWN, Kind.UTIMES}
)


class _Attribute(IntEnum):
    SIZE = 4
    PATH = 15
    PATH_TO = 16
    PATH_LINK = 17
    FILE_OFFSET = 18
    DATA = 19
    CLONE_LEN = 24


@dataclass(frozen=True, slots=True)
class Command:
    """`other` is a rename's target or a link's existing name; `offset` and `size` (bytes) are those of content."""

    kind: Kind
    path: bytes
    other: bytes = b""
    offset: int = 0
    size: int = 0


def changes_between(old: Path, new: Path) -> Iterator[Command]:
    """What turns the read-only snapshot `old` into `new`. The whole stream is good only when the iterator has ended.

    Raises:
        CommandError, SendStreamError: there is no account of what changed; look at everything.
    """
    argv: list[process.Argument] = ["btrfs", "send", "--quiet", "--no-data", "--proto", str(VERSION), "-p", old, new]
    with process.piped(argv) as stream:
        yield from read(stream)


def read(stream: IO[bytes]) -> Iterator[Command]:
    """The commands of a stream, up to and without END.

    Raises:
        SendStreamError: at the first command that is not whole and right.
    """
    magic = _exactly(stream, len(_MAGIC))
    if magic != _MAGIC:
        raise SendStreamError("not a send stream")
    (version,) = struct.unpack("<I", _exactly(stream, 4))
    if version != VERSION:
        raise SendStreamError(f"send stream of protocol {version}; only {VERSION} is known")
    while True:
        command = _command(stream)
        if command.kind is Kind.END:
            if stream.read(1):
                raise SendStreamError("the send stream goes on after its end")
            return
        yield command


def _command(stream: IO[bytes]) -> Command:
    header = _exactly(stream, _HEADER.size)
    length, number, checksum = _HEADER.unpack(header)
    if length > _LONGEST:
        raise SendStreamError(f"a command of {length} bytes: the send stream is damaged")
    body = _exactly(stream, length)
    crc = google_crc32c.extend(_INVERTED, _HEADER.pack(length, number, 0) + body) ^ _INVERTED
    if crc != checksum:
        raise SendStreamError("a command's checksum is wrong: the send stream is damaged")
    try:
        kind = Kind(number)
    except ValueError:
        raise SendStreamError(f"unknown command {number} in the send stream") from None
    return _interpreted(kind, body)


def _interpreted(kind: Kind, body: bytes) -> Command:
    path = other = b""
    offset = size = at = 0
    while at < len(body):
        if at + _ATTRIBUTE.size > len(body):
            raise SendStreamError("an attribute is cut short in the send stream")
        attribute, length = _ATTRIBUTE.unpack_from(body, at)
        at += _ATTRIBUTE.size
        value = body[at : at + length]
        if len(value) != length:
            raise SendStreamError("an attribute is cut short in the send stream")
        at += length
        if attribute == _Attribute.PATH:
            path = value
        elif attribute in (_Attribute.PATH_TO, _Attribute.PATH_LINK):
            other = value
        elif attribute == _Attribute.FILE_OFFSET:
            offset = _number(value)
        elif attribute in (_Attribute.SIZE, _Attribute.CLONE_LEN):
            size = _number(value)
        elif attribute == _Attribute.DATA:
            size = length
    if (not path and kind not in _MAY_BE_NAMELESS) or (not other and kind in _OF_TWO_NAMES):
        raise SendStreamError(f"a command of the send stream names no path ({kind.name})")
    return Command(kind, path, other, offset, size)


def _number(value: bytes) -> int:
    if len(value) != _NUMBER.size:
        raise SendStreamError(f"a number of {len(value)} bytes in the send stream")
    return int(_NUMBER.unpack(value)[0])


def _exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise SendStreamError("the send stream is cut short")
    return data
