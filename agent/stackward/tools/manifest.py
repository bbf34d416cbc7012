"""MANIFEST.sha256: one line a regular file, in the format of sha256sum(1).

`sha256sum --check --strict MANIFEST.sha256`, run in the backup's directory, reads it. A name with a backslash, a newline or a
carriage return is escaped and its line begins with a backslash, as GNU coreutils does. Lines are sorted by the bytes of
the unescaped path, which is relative to the backup, so that two manifests merge as streams.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

from stackward.tools import filesystem

Line = tuple[str, bytes]  # SHA-256 in hex, path
HASH_THREADS = 2
_BATCH = 512
_CHUNK = 1 << 20
_NEAR = 512  # how far about a line's length mostly reaches
_LONGEST = 1 << 15  # of a line: a path of 4096 bytes, each of them escaped, takes a quarter of it
_BLOCK = 1 << 16  # the largest that a file system shares files in
_HEX = b"0123456789abcdefABCDEF"
_ABNORMAL = frozenset({b"", b".", b".."})  # what no part of a path in a backup is
LONGEST_PATH = 3 * 4096  # a tree's path is at most 4096 bytes long, and it lies deeper in a backup
_ESCAPES = {b"\\\\": b"\\", b"\\n": b"\n", b"\\r": b"\r"}


def format_line(digest: str, path: bytes) -> bytes:
    if b"\\" in path or b"\n" in path or b"\r" in path:
        escaped = path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
        return b"\\" + digest.encode("ascii") + b"  " + escaped + b"\n"
    return digest.encode("ascii") + b"  " + path + b"\n"


def parse_line(line: bytes, inside: bytes = b"") -> Line:
    """A line with or without its newline; `inside` is what an absolute path may begin with, and is left out.

    Raises:
        ValueError: sha256sum would not take it either, or it names what cannot be in a backup.
    """
    line = line.removesuffix(b"\n")
    escaped = line.startswith(b"\\")
    digest, path = line[escaped : 64 + escaped], line[66 + escaped :]
    if len(digest) != 64 or line[64 + escaped : 66 + escaped] not in (b"  ", b" *") or not path:
        raise ValueError(f"not a line of a manifest: {line[:200]!r}")
    if digest.translate(None, _HEX):
        raise ValueError(f"not a line of a manifest: {line[:200]!r}")
    path = (_unescape(path) if escaped else path).removeprefix(inside).removeprefix(b"./")
    if len(path) > LONGEST_PATH or b"\0" in path or not _ABNORMAL.isdisjoint(path.split(b"/")):
        raise ValueError(f"it names what cannot be in a backup: {path[:200]!r}")
    return digest.decode("ascii").lower(), path


def read(file: IO[bytes]) -> Iterator[Line]:
    """The lines of an open manifest. Raises ValueError (with the line's number) and OSError."""
    for number, line in enumerate(raw_lines(file), 1):
        try:
            yield parse_line(line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error


@dataclass(frozen=True, slots=True)
class Extent:
    """Whole lines of a manifest, by their offsets in bytes."""

    path: Path
    start: int
    end: int


Piece = bytes | Extent | IO[bytes]


@dataclass(frozen=True, slots=True)
class Section:
    """The lines of one directory of a backup (`prefix` ends in a slash), sorted. An open file may be read once."""

    prefix: bytes
    pieces: tuple[Piece, ...]


def write(path: Path, sections: Iterable[Section]) -> None:
    """Write a manifest, which is for the caller to sync. An existing file is replaced, never written into."""
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb", buffering=1 << 20) as file:
        for section in sorted(sections, key=lambda section: section.prefix):
            for piece in section.pieces:
                _write_piece(file, piece)
    filesystem.replace(temporary, path)


def _write_piece(file: IO[bytes], piece: Piece) -> None:
    if isinstance(piece, bytes):
        file.write(piece)
    elif isinstance(piece, Extent):
        with open(_opened(piece.path), "rb") as source:
            _write_extent(file, source, piece)
    else:
        with piece:
            piece.seek(0)
            shutil.copyfileobj(piece, file, _CHUNK)


def _write_extent(file: IO[bytes], source: IO[bytes], extent: Extent) -> None:
    """Copy the lines. Blocks that stay where they were are shared with the old manifest, where the file system can."""
    at = extent.start
    begin, end = -(-extent.start // _BLOCK) * _BLOCK, extent.end // _BLOCK * _BLOCK
    if begin < end and file.tell() == extent.start:
        _copy_bytes(file, source, at, begin)
        file.flush()
        shared = filesystem.clone_range(source.fileno(), begin, end - begin, file.fileno(), begin)
        at = file.seek(end) if shared else begin
    _copy_bytes(file, source, at, extent.end)


def _copy_bytes(file: IO[bytes], source: IO[bytes], start: int, end: int) -> None:
    source.seek(start)
    left = end - start
    while left and (chunk := source.read(min(left, _CHUNK))):
        file.write(chunk)
        left -= len(chunk)
    if left:
        raise ValueError("a manifest is shorter than it was")


class Sorted:
    """A manifest that was written sorted: its lines are found by bisection, and copied without being read one by one.

    It is read, not mapped: a file on a share that others cut short, or of which a block cannot be read, raises.

    Raises ValueError where a line that is looked at is none, or the file is shorter than it was, and OSError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _opened(path)
        weakref.finalize(self, os.close, self._file)
        self._size = os.fstat(self._file).st_size

    def find(self, path: bytes) -> int:
        """The offset of the first line whose path is not before `path`."""
        low, high = 0, self._size
        while low < high:
            start, end, line = self._around(low, (low + high) // 2)
            if parse_line(line)[1] < path:
                low = end
            else:
                high = start
        return low

    def line_end(self, offset: int) -> int:
        return self._around(offset, offset)[1] if offset < self._size else self._size

    def line(self, offset: int) -> Line | None:
        """The line at an offset; None at the end."""
        return parse_line(self._around(offset, offset)[2]) if offset < self._size else None

    def below(self, directory: bytes) -> Extent:
        """The lines of all that is in `directory`."""
        return Extent(self.path, self.find(directory + b"/"), self.find(directory + b"0"))  # "0" comes after "/"

    def require_whole(self, directory: bytes) -> None:
        """Raises ValueError where other lines than those of what is in `directory`, each once and in order, stand between."""
        extent, last = self.below(directory), directory + b"/"
        for _, path in self.lines(extent):
            if path <= last or not path.startswith(directory + b"/"):
                raise ValueError(f"lines of {self.path} are out of their order: {path[:200]!r}")
            last = path

    def count(self, extent: Extent) -> int:
        return sum(chunk.count(b"\n") for chunk in self._chunks(extent))

    def lines(self, extent: Extent) -> Iterator[Line]:
        rest = b""
        for chunk in self._chunks(extent):
            *whole, rest = (rest + chunk).split(b"\n")
            if len(rest) > _LONGEST:
                raise ValueError(f"{self.path.name} has a line of more than {_LONGEST} bytes")
            yield from map(parse_line, whole)
        if rest:
            yield parse_line(rest)

    def _around(self, low: int, at: int) -> tuple[int, int, bytes]:
        """The line that the byte before `at` is in, or the one that begins at `low`: where it begins and ends, and itself."""
        reach = _NEAR
        while True:
            begin, stop = max(low, at - reach), min(self._size, at + reach)
            chunk = self._read(begin, stop - begin)
            start = chunk.rfind(b"\n", 0, at - begin) + 1
            end = chunk.find(b"\n", start) + 1
            if (start or begin == low) and (end or stop == self._size):
                end = end or len(chunk)
                return begin + start, begin + end, chunk[start:end]
            if reach > _LONGEST:
                raise ValueError(f"{self.path.name} has a line of more than {_LONGEST} bytes")
            reach *= 8

    def _chunks(self, extent: Extent) -> Iterator[bytes]:
        for start in range(extent.start, extent.end, _CHUNK):
            yield self._read(start, min(_CHUNK, extent.end - start))

    def _read(self, offset: int, size: int) -> bytes:
        parts = []
        while size:
            if not (part := os.pread(self._file, size, offset)):
                raise ValueError(f"{self.path} is shorter than it was")
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return b"".join(parts)


def raw_lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of an open manifest as they are, but for those that are too long to be one: of these only the beginning."""
    while line := file.readline(_LONGEST):
        if not line.endswith(b"\n") and len(line) == _LONGEST:
            while (more := file.readline(_LONGEST)) and not more.endswith(b"\n"):
                pass
            line = line[:32]  # in which no path can begin
        yield line


def _opened(path: Path) -> int:
    """A regular file, opened for reading without waiting for anything."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no regular file", os.fspath(path))
    return descriptor


def hash_file(path: bytes) -> str:
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(root: bytes, paths: Iterable[bytes]) -> Iterator[Line]:
    """The lines of `paths` (relative to `root`), in their order."""
    todo = iter(paths)
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        while batch := list(islice(todo, _BATCH)):
            digests = pool.map(lambda name: hash_file(root + b"/" + name), batch)
            yield from zip(digests, batch, strict=True)


def _unescape(path: bytes) -> bytes:
    result = bytearray()
    at = 0
    while at < len(path):
        pair = path[at : at + 2]
        if pair[:1] != b"\\":
            result += pair[:1]
            at += 1
        elif pair in _ESCAPES:
            result += _ESCAPES[pair]
            at += 2
        else:
            raise ValueError(f"unknown escape in {path[:200]!r}")
    return bytes(result)
