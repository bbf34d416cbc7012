"""MANIFEST.sha256: one line a regular file, in the format of sha256sum(1).

`sha256sum --check --strict MANIFEST.sha256`, run in the backup's directory, reads it. A name with a backslash, a newline or a
carriage return is escaped and its line begins with a backslash, as GNU coreutils does. Lines are sorted by the bytes of
the unescaped path, which is relative to the backup, so that two manifests merge as streams.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

Line = tuple[str, bytes]  # SHA-256 in hex, path
HASH_THREADS = 2
_BATCH = 512
_ESCAPES = {b"\\\\": b"\\", b"\\n": b"\n", b"\\r": b"\r"}


def format_line(digest: str, path: bytes) -> bytes:
    if b"\\" in path or b"\n" in path or b"\r" in path:
        escaped = path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
        return b"\\" + digest.encode("ascii") + b"  " + escaped + b"\n"
    return digest.encode("ascii") + b"  " + path + b"\n"


def parse_line(line: bytes) -> Line:
    """A line with or without its newline. Raises ValueError for what sha256sum would not take either."""
    line = line.removesuffix(b"\n")
    escaped = line.startswith(b"\\")
    digest, path = line[escaped : 64 + escaped], line[66 + escaped :]
    if len(digest) != 64 or line[64 + escaped : 66 + escaped] not in (b"  ", b" *") or not path:
        raise ValueError(f"not a line of a manifest: {line[:200]!r}")
    int(digest, 16)
    return digest.decode("ascii").lower(), (_unescape(path) if escaped else path).removeprefix(b"./")


def read(path: Path) -> Iterator[Line]:
    """The lines of a manifest. Raises ValueError (with the line's number) and OSError."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield parse_line(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error


def write(path: Path, lines: Iterable[Line]) -> None:
    """Write a manifest and sync it. `lines` come sorted. An existing file is replaced, never written into."""
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb", buffering=1 << 20) as file:
        file.writelines(format_line(digest, name) for digest, name in lines)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, path)


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


def below(lines: Iterable[Line], prefixes: Iterable[str]) -> Iterator[Line]:
    """Those lines whose path lies in one of the directories `prefixes`."""
    starts = tuple(os.fsencode(prefix) + b"/" for prefix in prefixes)
    return (line for line in lines if line[1].startswith(starts))


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
