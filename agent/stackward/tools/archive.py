"""Tarballs: GNU tar writes and extracts them, gzip is done in parallel, the checksum while writing.

The format is plain pax (`tar xzf` and Python's tarfile read it) with owners as numbers, xattrs, ACLs, hard links and
holes. Member names are bytes relative to the base directory, without a leading `./`.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
import tempfile
from dataclasses import dataclass, field
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Any, cast

from isal import igzip, igzip_threaded, isal_zlib

from stackward.core import posix_acl
from stackward.core.errors import DamageError
from stackward.tools import process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

_BLOCK = 1 << 20
_IsalError = cast("type[Exception]", isal_zlib.IsalError)
_LEVEL = 2  # a sixth larger than gzip -6 makes it, for a tenth of the CPU time
_KEEP = ("--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner")
_EXACT_NAMES = ("--null", "--verbatim-files-from", "--no-unquote", "--no-recursion", "--files-from=-")
# GNU tar's messages about a file that is being written to while it is read; the archive is sound nevertheless.
_VANISHED = re.compile(r": (Cannot (stat|open): No such file or directory|File removed before we read it)$")
_HARMLESS = re.compile(
    rf"{_VANISHED.pattern}|: Warning: |"
    r": (file changed as we read it|File shrank by \d+ bytes; padding with zeros|socket ignored)$"
)
_UNREADABLE = re.compile(r"(.*): (?:Cannot (?:open|stat|readlink|read)|Read error at byte \d+, [^:]*): [^:]*$")
_TIME = re.compile(r"-?\d{1,9}(\d(\.\d{0,20})?)?|-?\d{1,9}\.\d{0,20}", re.ASCII)  # what fits a file, in nanoseconds
_HEADER_BYTES = 16 << 20  # of one header: a name, a link or attributes
_XATTR = "SCHILY.xattr."  # keywords of GNU tar and star
_ACLS = {"SCHILY.acl.access": posix_acl.ACCESS, "SCHILY.acl.default": posix_acl.DEFAULT}
_ESCAPES = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_SUMMARY = "Exiting with failure status due to previous errors"


class UnreadableError(process.CommandError):
    """Some members could not be read; what was written is no whole archive. `names` are theirs."""

    def __init__(self, argv: Sequence[str], said: Sequence[str], names: Sequence[bytes]) -> None:
        super().__init__(argv, 2, "\n".join(said[-20:]))
        self.names = tuple(names)


@dataclass(frozen=True, slots=True)
class Written:
    """`warnings` are tar's words for files that changed or vanished while they were read."""

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
    transform: str = "",
    on_bytes: Callable[[int], None] | None = None,
) -> Written:
    """Write a .tar.gz of exactly `members` (directories come without what is in them) to an open file.

    Where `transform` (a sed expression, as tar takes it) is given, names may be absolute. `on_bytes` hears how many
    bytes of the uncompressed archive were made. The caller syncs the file.

    Raises:
        UnreadableError: tar could not read members for another reason than that they were gone.
        CommandError: tar failed.
        OSError: the destination is full or broken.
    """
    argv = ["tar", "--create", "--file=-", "--format=posix", "--pax-option=delete=atime,delete=ctime", "--sparse"]
    argv += [*_KEEP, "--quoting-style=escape", *([f"--transform={transform}", "--absolute-names"] if transform else [])]
    argv += ["--directory", os.fspath(base), *_EXACT_NAMES]
    hashed = _HashingWriter(destination)
    with tempfile.TemporaryFile() as names, tempfile.TemporaryFile() as errors:
        names.writelines(name + b"\0" for name in members)
        names.seek(0)
        with process.piped(argv, stdin=names, ok=(0, 1, 2), stderr=errors) as output:
            _compress(output, hashed, threads, on_bytes)
        errors.seek(0)
        warnings = _judge(argv, errors.read().decode("utf-8", "backslashreplace").splitlines())
    return Written(hashed.sha256.hexdigest(), hashed.count, warnings)


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


def _compress(source: IO[bytes], sink: _HashingWriter, threads: int, on_bytes: Callable[[int], None] | None) -> None:
    open_parallel: Any = igzip_threaded.open
    with open_parallel(sink, "wb", compresslevel=_LEVEL, threads=threads, block_size=_BLOCK) as packed:
        while chunk := source.read(_BLOCK):
            packed.write(chunk)
            if on_bytes is not None:
                on_bytes(len(chunk))


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


def _judge(argv: list[str], lines: list[str]) -> tuple[str, ...]:
    """What tar said, if all of it is harmless. Raises UnreadableError or CommandError otherwise."""
    said = [line.removeprefix("tar: ") for line in lines if not line.endswith(_SUMMARY)]
    fatal = [line for line in said if not _HARMLESS.search(line)]
    named = [match for match in map(_UNREADABLE.match, fatal) if match]
    if fatal and len(named) == len(fatal):
        raise UnreadableError(argv, fatal, sorted({_unquote(match[1]) for match in named}))
    if fatal:
        raise process.CommandError(argv, 2, "\n".join(fatal[-20:]))
    return tuple(_VANISHED.sub(": vanished while it was read", line) for line in said)


def _unquote(name: str) -> bytes:
    """The bytes of a name that tar quoted in its style `escape`."""

    def plain(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return bytes([int(code, 8)]) if code.isdigit() else _ESCAPES.get(code, code)

    return re.sub(rb"\\([0-7]{3}|.)", plain, name.encode())


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
    found: dict[str, bytes] = {}
    for key, value in headers.items():
        if key in _ACLS:
            found[_ACLS[key]] = posix_acl.from_text(value)
        elif key.startswith(_XATTR) and (name := key.removeprefix(_XATTR)) not in _ACLS.values():
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
