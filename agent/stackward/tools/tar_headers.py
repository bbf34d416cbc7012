"""The headers of a pax archive, as GNU tar writes and reads them: numbers for owners, bytes for names."""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Iterable, Mapping
from functools import lru_cache

from stackward.core import posix_acl

BLOCK = 512
REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_PAX = b"x"
# name mode uid gid size mtime checksum kind link magic owner group major minor prefix
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_MAGIC = b"ustar\x0000"
_NAME_BYTES = 100
_MOST_SMALL, _MOST_LARGE = 0o7777777, 0o77777777777  # what the fields of 8 and 12 bytes hold
_TOOK = posix_acl.ACCESS, posix_acl.DEFAULT


def member(
    name: bytes,
    status: os.stat_result,
    kind: bytes,
    *,
    size: int = 0,
    link: bytes = b"",
    records: Iterable[tuple[bytes, bytes]] = (),
    stored_as: bytes = b"",
) -> bytes:
    """The header of one member, with a pax header before it where something does not fit into it.

    `records` are further ones for that; `stored_as` is the name in the header itself, where that is another one.
    """
    more = list(records)
    name_field = stored_as or name
    if not stored_as and _needs_record(name):
        more.append((b"path", name))
    if _needs_record(link):
        more.append((b"linkpath", link))
    for key, number in ((b"uid", status.st_uid), (b"gid", status.st_gid)):
        if number > _MOST_SMALL:
            more.append((key, b"%d" % number))
    if size > _MOST_LARGE:
        more.append((b"size", b"%d" % size))
    if status.st_mtime_ns % 10**9 or not 0 <= status.st_mtime_ns // 10**9 <= _MOST_LARGE:
        more.append((b"mtime", _time(status.st_mtime_ns)))
    header = _header(
        name_field,
        kind,
        mode=stat.S_IMODE(status.st_mode),
        owner=(status.st_uid, status.st_gid),
        size=size,
        mtime=status.st_mtime_ns // 10**9,
        link=link,
        device=status.st_rdev if kind in (CHARACTER, BLOCK_DEVICE) else 0,
    )
    if not more:
        return header
    body = b"".join(_record(key, value) for key, value in more)
    return _pax(len(body)) + body + padding(len(body)) + header


def padding(size: int) -> bytes:
    """The zeros that follow so many bytes up to the next block."""
    return bytes(-size % BLOCK)


def attributes(found: Mapping[str, bytes]) -> list[tuple[bytes, bytes]]:
    """The records for extended attributes; ACLs as text, too, which is what GNU tar restores them from."""
    records = []
    for name, which in zip(_TOOK, (b"access", b"default"), strict=True):
        if name in found and (text := _acl_text(found[name])):
            records.append((b"SCHILY.acl." + which, text))
    for name in sorted(found):
        key = os.fsencode(name).replace(b"%", b"%25").replace(b"=", b"%3D")
        records.append((b"SCHILY.xattr." + key, found[name]))
    return records


def sparse(name: bytes, size: int, pieces: list[tuple[int, int]]) -> tuple[bytes, list[tuple[bytes, bytes]], bytes]:
    """A file with holes, in GNU's format 1.0: the name in its header, the records, and the map that precedes its data.

    `pieces` are where data begins and ends.
    """
    listed = [(start, end - start) for start, end in pieces]
    if not pieces or pieces[-1][1] < size:
        listed.append((size, 0))
    text = b"%d\n" % len(listed) + b"".join(b"%d\n%d\n" % piece for piece in listed)
    records = [
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", name),
        (b"GNU.sparse.realsize", b"%d" % size),
    ]
    return b"./GNUSparseFile.0/" + os.path.basename(name), records, text + padding(len(text))


def _needs_record(text: bytes) -> bool:
    return len(text) > _NAME_BYTES or not text.isascii()


@lru_cache
def _pax(size: int) -> bytes:
    """The header of the records that tell more of the next member. Its own name is never used."""
    return _header(b"././@PaxHeader", _PAX, mode=0o644, owner=(0, 0), size=size, mtime=0)


def _header(
    name: bytes,
    kind: bytes,
    *,
    mode: int,
    owner: tuple[int, int],
    size: int,
    mtime: int,
    link: bytes = b"",
    device: int = 0,
) -> bytes:
    header = _HEADER.pack(
        name[:_NAME_BYTES],
        b"%07o" % mode,
        b"%07o" % (owner[0] if owner[0] <= _MOST_SMALL else 0),
        b"%07o" % (owner[1] if owner[1] <= _MOST_SMALL else 0),
        b"%011o" % (size if size <= _MOST_LARGE else 0),
        b"%011o" % (mtime if 0 <= mtime <= _MOST_LARGE else 0),
        b"        ",
        kind,
        link[:_NAME_BYTES],
        _MAGIC,
        b"",
        b"",
        b"%07o" % os.major(device),
        b"%07o" % os.minor(device),
        b"",
    )
    return header[:148] + b"%06o\0 " % _sum(header) + header[156:]


def _sum(header: bytes) -> int:
    """Of its bytes, quickly: the lower half of an Adler-32 is that plus one, for as many bytes as do not overflow it."""
    half = len(header) // 2
    return (zlib.adler32(header[:half]) & 0xFFFF) + (zlib.adler32(header[half:]) & 0xFFFF) - 2


def _record(key: bytes, value: bytes) -> bytes:
    r"""`LENGTH KEY=VALUE\n`, where the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _time(nanoseconds: int) -> bytes:
    seconds, fraction = divmod(abs(nanoseconds), 10**9)
    sign = b"-" if nanoseconds < 0 else b""
    digits = (b".%09d" % fraction).rstrip(b"0").rstrip(b".")
    return sign + b"%d" % seconds + digits


def _acl_text(value: bytes) -> bytes:
    """An ACL as setfacl(1) takes it, with numbers for names; nothing where it is none."""
    try:
        return posix_acl.to_text(value).encode("ascii")
    except ValueError:
        return b""
