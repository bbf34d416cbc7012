"""Tarballs: `tar_writer` writes them, GNU tar extracts them, gzip is done in parallel, the checksum while writing.

The format is plain pax (`tar xzf` and Python's tarfile read it) with owners as numbers, xattrs, ACLs, hard links and
holes. Member names are bytes relative to the base directory, without a leading `./`.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, cast

from isal import igzip, igzip_threaded, isal_zlib

from stackward.core.errors import DamageError
from stackward.tools import beneath, process, tar_writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

_BLOCK = 1 << 20
_IsalError = cast("type[Exception]", isal_zlib.IsalError)
_LEVEL = 2  # a sixth larger than gzip -6 makes it, for a tenth of the CPU time
_KEEP = ("--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner")
_EXACT_NAMES = ("--null", "--verbatim-files-from", "--no-unquote", "--no-recursion", "--files-from=-")


@dataclass(frozen=True, slots=True)
class Written:
    """`warnings` tell of files that changed or vanished while they were read."""

    sha256: str
    bytes: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of a tarball. `kind` is tar's type flag as tarfile has it; `size` is that of the restored file."""

    name: bytes
    kind: bytes
    size: int
    mode: int
    uid: int
    gid: int
    mtime: float
    link: bytes
    device: tuple[int, int] = (0, 0)

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


def extract(source: IO[bytes], destination: Path, members: Iterable[bytes] | None = None) -> None:
    """Unpack a .tar.gz (all of it, or exactly `members`) as it was: owners, modes, times, xattrs, ACLs, links, holes.

    Existing files are replaced, never written into; existing directories keep their mode and owner until the end, when
    they get those of the archive.

    Raises:
        CommandError: tar failed, also where the archive ended early or a member wasn't in it.
    """
    argv = ["tar", "--extract", "--gzip", "--file=-", *_KEEP, "--same-owner", "--preserve-permissions"]
    argv += ["--quoting-style=escape", "--no-wildcards", "--directory", os.fspath(destination)]
    with tempfile.NamedTemporaryFile() as names:
        if members is not None:
            names.writelines(name + b"\0" for name in members)
            names.flush()
            argv += [*_EXACT_NAMES[:-1], f"--files-from={names.name}"]
        with process.fed(argv) as sink:
            while chunk := source.read(_BLOCK):
                sink.write(chunk)


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
        with _gunzip(source) as plain, tarfile.open(fileobj=plain, mode="r|", bufsize=_BLOCK) as tar:
            while (info := tar.next()) is not None:
                cast("Any", tar).members.clear()  # it would remember all of them
                yield _member(info), tar.extractfile(info) if info.isreg() else None
            _require_end(cast("IO[bytes]", tar.fileobj))
    except (tarfile.TarError, igzip.BadGzipFile, _IsalError, EOFError, ValueError) as error:
        raise DamageError(f"the archive is damaged: {error}") from error


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
        mtime=float(info.mtime),
        link=os.fsencode(info.linkname),
        device=(info.devmajor, info.devminor),
    )


def _require_end(rest: IO[bytes]) -> None:
    """A broken header looks like the end to tarfile; the real end is zeros up to the end of the file."""
    seen = 0
    while chunk := rest.read(_BLOCK):
        seen += len(chunk)
        if chunk.strip(b"\0"):
            raise DamageError("the archive is damaged: something follows its end")
    if not seen:
        raise DamageError("the archive is damaged: it ends early")
