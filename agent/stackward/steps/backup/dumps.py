"""Logical dumps of databases, beside the trees: what a restore into another version of the database needs.

PostgreSQL and MariaDB are dumped by their own programs in their own container, into `<service>.sql.gz`; SQLite through its online
backup, into `<service>-<file>`. A dump is whole or it is an error: the program's exit code and its closing line are checked.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from isal import igzip

from stackward.config import Settings
from stackward.core.errors import StackwardError
from stackward.core.index import DumpEntry
from stackward.core.model import Container, Dump, Stack, display
from stackward.stacks import places
from stackward.tools import sqlite
from stackward.tools.beneath import LinkOnTheWayError
from stackward.tools.docker import Docker, DockerError, HookTimeout
from stackward.tools.host_files import HostFiles

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
                _sqlite(stack, container, dump, directory / name, places.look(settings, docker).files)
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


def _sqlite(stack: Stack, container: Container, dump: Dump, target: Path, seen: HostFiles) -> None:
    """SQLite's online backup: consistent while the database is in use, and it writes nothing to the source."""
    root, path = _on_host(stack, container, dump)
    if why := seen.refusal(root):
        raise DumpError(f"sqlite dump: {why}", hint=seen.advice(root))
    try:
        sqlite.copy(root, path, target)
    except (sqlite.SqliteError, LinkOnTheWayError) as error:
        raise DumpError(f"sqlite dump: {error.message}", hint=error.hint) from error


def _on_host(stack: Stack, container: Container, dump: Dump) -> tuple[Path, bytes]:
    """The stack's own tree, or directory, that has the file, and its path there. No link below it is followed later."""
    inside = Path(os.path.normpath(dump.path))
    mounts = sorted(container.mounts, key=lambda mount: -len(mount.target))
    mount = next((one for one in mounts if inside == Path(one.target) or Path(one.target) in inside.parents), None)
    if mount is None:
        raise DumpError(
            f"sqlite dump of {stack.name}/{dump.service}: {dump.path} is on no volume or bind of the container",
            hint="name the file by its path inside the container",
        )
    below = inside.relative_to(mount.target)
    for tree in stack.trees:
        if tree.volume is not None and tree.volume == mount.name:
            return tree.path, os.fsencode(below)
    source = Path(os.path.realpath(mount.source)) / below
    roots = [*(tree.path for tree in stack.trees), Path(os.path.realpath(stack.directory))]
    root = max((root for root in roots if root in source.parents), key=lambda root: len(root.parts), default=None)
    if root is None:
        raise DumpError(
            f"sqlite dump of {stack.name}/{dump.service}: {display(source)} is in no tree of the stack",
            hint="have the database on a volume or in a directory of the stack's own",
        )
    return root, os.fsencode(source.relative_to(root))
