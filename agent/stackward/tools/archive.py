"""Tarballs: `tar_writer` writes them, GNU tar extracts them, gzip is done in parallel, the checksum while writing.

The format is plain pax (`tar xzf` and Python's tarfile read it) with owners as numbers, xattrs, ACLs, hard links and
holes. Member names are bytes relative to the base directory, without a leading `./`.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Any, cast

from isal import igzip, igzip_threaded, isal_zlib

from stackward.core import posix_acl
from stackward.core.errors import DamageError
from stackward.tools import beneath, tar_writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

_BLOCK = 1 << 20
_IsalError = cast("type[Exception]", isal_zlib.IsalError)
_LEVEL = 2  # a sixth larger than gzip -6 makes it, for a tenth of the CPU time
_TIME = re.compile(r"-?\d{1,9}(\d(\.\d{0,20})?)?|-?\d{1,9}\.\d{0,20}", re.ASCII)  # what fits a file, in nanoseconds
_HEADER_BYTES = 16 << 20  # of one header: a name, a link or attributes
_XATTR = "SCHILY.xattr."  # keywords of GNU tar and star
_ACLS = {"SCHILY.acl.access": posix_acl.ACCESS, "SCHILY.acl.default": posix_acl.DEFAULT}


@dataclass(frozen=True, slots=True)
class Written:
    """`warnings` tell of files that changed or vanished while they were read."""

    sha256: str
    bytes: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of a tarball. `kind` is tar's type flag as tarfile has it; `size` is that of the restored file.

    `extended` are its extended attributes, access lists among them.
    """

    name: bytes
    kind: bytes
    size: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    link: bytes
    device: tuple[int, int] = (0, 0)
    extended: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def is_directory(self) -> bool:
        return self.kind == tarfile.DIRTYPE

    @property
    def is_regular(self) -> bool:
        return self.kind in tarfile.REGULAR_TYPES


def create(
    destination: IO[bytes],
    base: Path,
    members: Iterable[bytes],
    *,
    threads: int = 2,
    outside: bytes = b"",
    on_bytes: Callable[[int], None] | None = None,
) -> Written:
    """Write a .tar.gz of exactly `members` (directories come without what is in them) to an open file.

    None is read through a symbolic link. Where `outside` is given, names may be absolute, and are put below it. `on_bytes`
    hears how many bytes of the uncompressed archive were made. The caller syncs the file.

    Raises:
        UnreadableError: members could not be read for another reason than that they were gone.
        OSError: the destination is full or broken, or `base` cannot be opened.
    """
    hashed = _HashingWriter(destination)
    open_parallel: Any = igzip_threaded.open
    with (
        beneath.opened(os.path.realpath(base), beneath.DIRECTORY) as root,
        open_parallel(hashed, "wb", compresslevel=_LEVEL, threads=threads, block_size=_BLOCK) as packed,
    ):

        def write(data: bytes) -> None:
            packed.write(data)
            if on_bytes is not None:
                on_bytes(len(data))

        writer = tar_writer.Writer(root, write, outside)
        writer.add_all(members)
    return Written(hashed.sha256.hexdigest(), hashed.count, tuple(writer.warnings))


def members(source: IO[bytes]) -> Iterator[Member]:
    """Every member of a .tar.gz, in its order; the iterator ends only after the gzip checksum was right.

    Raises:
        DamageError: it is not a gzip, its checksum is wrong, it ends early, or something in it is not tar's.
    """
    for member, _content in contents(source):
        yield member


def contents(source: IO[bytes]) -> Iterator[tuple[Member, IO[bytes] | None]]:
    """As `members`, each regular file with its content, which can be read until the next one is asked for."""
    try:
        with _gunzip(source) as plain, tarfile.open(fileobj=plain, mode="r|", bufsize=_BLOCK, tarinfo=_Info) as tar:
            while (info := tar.next()) is not None:
                cast("Any", tar).members.clear()  # it would remember all of them
                yield _member(info), tar.extractfile(info) if info.isreg() else None
            _require_end(cast("IO[bytes]", tar.fileobj))
    except (tarfile.TarError, igzip.BadGzipFile, _IsalError, EOFError, ValueError, OverflowError, TypeError) as error:
        raise DamageError(f"the archive is damaged: {error}") from error


class _Info(tarfile.TarInfo):
    """A header that is read to memory only up to a size: a hostile archive may say any."""

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        if self.type in _IN_MEMORY and self.size > _HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return super()._proc_member(tar)  # type: ignore[misc]


_IN_MEMORY = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


def _gunzip(source: IO[bytes]) -> IO[bytes]:
    opened: IO[bytes] = cast("Any", igzip.open)(source, "rb")
    return opened


class _HashingWriter:
    """A file that knows the SHA-256 and the number of the bytes that went into it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.count = 0

    def write(self, data: bytes) -> int:
        self._file.write(data)
        self.sha256.update(data)
        self.count += len(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()


def _member(info: tarfile.TarInfo) -> Member:
    return Member(
        name=os.fsencode(info.name),
        kind=info.type,
        size=info.size,
        mode=info.mode & 0o7777,
        uid=info.uid,
        gid=info.gid,
        mtime_ns=_nanoseconds(info.pax_headers.get("mtime") or str(info.mtime)),
        link=os.fsencode(info.linkname),
        device=(info.devmajor, info.devminor),
        extended=_extended(info.pax_headers),
    )


def plain_name(name: bytes) -> bytes:
    """A member's name without a leading `./` or a trailing slash; "" for the archive's own directory."""
    while name.startswith(b"./"):
        name = name[2:].lstrip(b"/")
    name = name.rstrip(b"/") if name != b"/" else name
    return b"" if name == b"." else name


def _nanoseconds(text: str) -> int:
    """Of a time in seconds, as pax has it. Raises ValueError, also for one that no file can have."""
    if _TIME.fullmatch(text) is None:
        raise ValueError(f"{text[:40]} is no time of a file")
    return int(Decimal(text) * 1_000_000_000)


def _extended(headers: Mapping[str, str]) -> dict[str, bytes]:
    """Extended attributes; access lists as attributes where they are there so, else from their text if that has numbers."""
    found: dict[str, bytes] = {}
    for key, name in _ACLS.items():
        with suppress(ValueError):
            rights = posix_acl.from_text(headers.get(key) or "-")
            if not posix_acl.is_mode(rights):
                found[name] = rights
    for key, value in headers.items():
        if key.startswith(_XATTR):
            name = key.removeprefix(_XATTR).replace("%3D", "=").replace("%25", "%")
            found[name] = value.encode("utf-8", "surrogateescape")
    return found


def _require_end(rest: IO[bytes]) -> None:
    """A broken header looks like the end to tarfile; the real end is zeros up to the end of the file."""
    seen = 0
    while chunk := rest.read(_BLOCK):
        seen += len(chunk)
        if chunk.strip(b"\0"):
            raise DamageError("the archive is damaged: something follows its end")
    if not seen:
        raise DamageError("the archive is damaged: it ends early")
