"""Logical dumps of databases, beside the trees: what a restore into another version of the database needs.

PostgreSQL and MariaDB are dumped by their own programs in their own container, into `<service>.sql.gz`; SQLite through its online
backup, into `<service>-<file>`. A dump is whole or it is an error: the program's exit code and its closing line are checked.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from isal import igzip

from stackward.config import Settings
from stackward.core.errors import StackwardError
from stackward.core.index import DumpEntry
from stackward.core.model import Container, Dump, Stack
from stackward.stacks import places
from stackward.tools.docker import Docker, DockerError, HookTimeout

_STALL_SECONDS = 300.0
# The images' own variables say who may read everything; both programs are asked for one consistent snapshot.
_COMMANDS = {
    "postgres": 'exec pg_dumpall --clean --if-exists -U "${POSTGRES_USER:-postgres}"',
    "mariadb": (
        'MYSQL_PWD="${MARIADB_ROOT_PASSWORD:-${MYSQL_ROOT_PASSWORD:-}}"; export MYSQL_PWD; '
        "dump=$(command -v mariadb-dump || command -v mysqldump) || exit 127; "
        'exec "$dump" -uroot --all-databases --single-transaction --routines --events --hex-blob'
    ),
}
_CLOSING_LINES = {"postgres": b"PostgreSQL database cluster dump complete", "mariadb": b"-- Dump completed"}
_TAIL_BYTES = 4096


class DumpError(StackwardError):
    """A dump is not whole; the stack's backup fails, since its labels ask for the dump."""


def take(
    docker: Docker, settings: Settings, stack: Stack, directory: Path, relative: str
) -> tuple[tuple[DumpEntry, ...], tuple[str, ...]]:
    """Dump what the labels name into `directory`. Returns the entries, and warnings for services that do not run."""
    entries, warnings = [], []
    running = {container.service: container for container in stack.running if container.state == "running"}
    for service in stack.services:
        for dump in service.policy.dumps:
            container = running.get(service.name)
            if container is None:
                warnings.append(f"{service.name} is not running: no {dump.kind} dump")
                continue
            directory.mkdir(parents=True, exist_ok=True)
            name = _file_name(dump)
            if dump.kind == "sqlite":
                source = _on_host(stack, container, dump)
                seen = places.look(settings, docker).files
                if why := seen.refusal(source):
                    raise DumpError(f"sqlite dump: {why}", hint=seen.advice(source))
                _sqlite(source, directory / name)
            else:
                _program(docker, dump, container, directory / name)
            entries.append(DumpEntry(dump.service, dump.kind, f"{relative}/{name}"))
    return tuple(entries), tuple(warnings)


def _file_name(dump: Dump) -> str:
    if dump.kind == "sqlite":
        return f"{dump.service}-{os.path.basename(dump.path)}"
    return f"{dump.service}.{dump.kind}.sql.gz"


class _Compressed:
    """A gzip file that remembers the end of what went into it."""

    def __init__(self, path: Path) -> None:
        self._file = igzip.open(path, "wb", compresslevel=2)  # type: ignore[no-untyped-call]
        self.tail = b""

    def write(self, chunk: bytes) -> int:
        self.tail = (self.tail + chunk)[-_TAIL_BYTES:]
        return int(self._file.write(chunk))

    def close(self) -> None:
        self._file.close()


def _program(docker: Docker, dump: Dump, container: Container, target: Path) -> None:
    with closing(_Compressed(target)) as file:
        try:
            result = docker.exec_to_file(
                container.id,
                ["sh", "-c", _COMMANDS[dump.kind]],
                file,  # type: ignore[arg-type]  # only its write is used
                stall_seconds=_STALL_SECONDS,
            )
        except (DockerError, HookTimeout) as error:
            raise DumpError(f"{dump.kind} dump of {dump.service}: {error.message}") from error
    if result.exit_code != 0:
        raise DumpError(f"{dump.kind} dump of {dump.service} failed: {result.output_tail.strip()[-500:]}")
    if _CLOSING_LINES[dump.kind] not in file.tail:
        raise DumpError(f"{dump.kind} dump of {dump.service} ended early: its closing line is missing")


def _sqlite(source: Path, target: Path) -> None:
    """SQLite's online backup: consistent while the database is in use, and it writes nothing to the source."""
    if not source.is_file():
        raise DumpError(
            f"sqlite dump: {source} is not there",
            hint="stackward.backup.dump takes sqlite:PATH as the container sees it",
        )
    target.unlink(missing_ok=True)
    try:
        with (
            closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True, timeout=30)) as database,
            closing(sqlite3.connect(target)) as copy,
        ):
            database.backup(copy, pages=4096)
            damage: Sequence[str] = copy.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        raise DumpError(f"sqlite dump of {source}: {error}") from error
    if damage[0] != "ok":
        raise DumpError(f"sqlite dump of {source}: the database is damaged: {damage[0]}")


def _on_host(stack: Stack, container: Container, dump: Dump) -> Path:
    """Where the host has the file that the container sees at the dump's path."""
    inside = Path(dump.path)
    mounts = sorted(container.mounts, key=lambda mount: -len(mount.target))
    for mount in mounts:
        target = Path(mount.target)
        if inside == target or target in inside.parents:
            return Path(mount.source) / inside.relative_to(target)
    raise DumpError(
        f"sqlite dump of {stack.name}/{dump.service}: {dump.path} is on no volume or bind of the container",
        hint="name the file by its path inside the container",
    )
