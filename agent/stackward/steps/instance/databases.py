"""PostgreSQL in a drill: whether it runs on what the backup held, and how many rows are in it."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackward.core import images
from stackward.core.counts import Count
from stackward.core.errors import RefusedError
from stackward.core.model import Container, Service, display
from stackward.core.staging_facts import within
from stackward.tools import tree_root
from stackward.tools.docker import Docker, DockerError, HookTimeout
from stackward.tools.tree_root import TreeRoot

_STALL_SECONDS = 3600.0
_SILENCE_SECONDS = 120.0  # one that recovers says so; one that says nothing at all does not run
_HOMES = ("/var/lib/postgresql", "/bitnami/postgresql")
_NOTHING = "nothing of its data is proven"
_CONTROL = b"global/pg_control"
_DEPTH = 4  # of a cluster below what is mounted; the usual images need two
_DIRECTORIES = 20_000
_UNREACHABLE = 2  # by psql, and the script
# It is asked as the user that its image made; in what has PGHOST, as the user that it says. What an extension brought along
# was not put there by anybody. All of it is counted, since that reads all of it; then everything is read once more by what
# would write it to a dump.
_SCRIPT = r"""
set -e
said() { if [ -n "$1" ]; then printf '%s' "$1"; elif [ -n "$2" ]; then cat "$2"; fi; }
user=${POSTGRES_USER:-${POSTGRESQL_USERNAME:-}} password=${POSTGRES_PASSWORD:-${POSTGRESQL_PASSWORD:-}}
[ -z "${PGHOST:-}" ] || user=${user:-${PGUSER:-}} password=${password:-${PGPASSWORD:-}}
PGPASSWORD=$(said "$password" "${POSTGRES_PASSWORD_FILE:-${POSTGRESQL_PASSWORD_FILE:-}}")
PGUSER=$(said "$user" "${POSTGRES_USER_FILE:-}"); PGUSER=${PGUSER:-postgres}; export PGPASSWORD PGUSER
waited=0
while code=0; pg_isready -q || code=$?; [ "$code" = 1 ] || [ "$code" = 2 ]; do
    if [ "$code" = 1 ]; then limit=$STACKWARD_PATIENCE; else limit=$STACKWARD_SILENCE; fi
    if [ "$waited" -ge "$limit" ]; then echo "it takes no connections after $waited s" >&2; exit 2; fi
    waited=$((waited + 1)); sleep 1
done
ask() { psql -d postgres -qAtc "$1"; }
ask "SELECT format('CLUSTER %s %s', system_identifier, (SELECT setting FROM pg_settings WHERE name = 'data_directory'))
FROM pg_control_system()" || :
databases=$(ask 'SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1')
printf '%s\n' "$databases" | while IFS= read -r PGDATABASE; do
    export PGDATABASE
    counted=$(psql -v ON_ERROR_STOP=1 -qAt <<'END'
SELECT format('SELECT %s, count(*) FROM %s', CASE WHEN d.objid IS NULL THEN 1 ELSE 0 END, c.oid::regclass)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0 AND d.deptype = 'e'
WHERE c.relkind = 'r' AND n.nspname !~ '^(pg_|information_schema$)' ORDER BY 1 \gexec
END
)
    tables=0; rows=0
    for count in $counted; do
        case $count in 1*) tables=$((tables + 1)); rows=$((rows + ${count#*|}));; esac
    done
    echo "COUNT $rows $tables $PGDATABASE"
done
pg_dumpall >/dev/null
"""
_CLUSTER_LINE = re.compile(r"^CLUSTER (-?\d+) (.*)$", re.MULTILINE)
_COUNT_LINE = re.compile(r"^COUNT (\d+) (\d+) (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Found:
    """What came of it: `wrong` is why it proves nothing, or ""; `note` is said where it was not to prove anything."""

    counts: tuple[Count, ...] = ()
    wrong: str = ""
    note: str = ""


def is_postgres(service: Service, definition: Mapping[str, Any]) -> bool:
    """By its image, its dump, or the place that its data is mounted at."""
    return images.database(service.image) == "postgres" or _is_server(service, definition)


def _is_server(service: Service, definition: Mapping[str, Any]) -> bool:
    """Whether there is to be a database in it; what has no more than the image may be a client of another one."""
    if any(dump.kind == "postgres" for dump in service.policy.dumps):
        return True
    return any(str(mount.get("target") or "").startswith(_HOMES) for mount in definition.get("volumes") or [])


def clusters(definition: Mapping[str, Any]) -> frozenset[int]:
    """The identifiers of the database clusters in what a service of an instance has mounted; to be asked before it starts."""
    mounts = definition.get("volumes") or []
    sources = [str(one["source"]) for one in mounts if one.get("type") == "bind" and one.get("source")]
    return frozenset(found for source in sources for found in _clusters_below(source))


def count(
    docker: Docker,
    container: Container,
    service: Service,
    definition: Mapping[str, Any],
    held: Mapping[str, frozenset[int]],
    *,
    empty_below: str,
    patience_seconds: float,
) -> Found:
    """Count every row of every table, in what must be one of the clusters that the backup `held` for the service.

    `held` is by the service's name; where another one's database answers, this one is its client. `definition` is the
    service as the instance has it; what lies in `empty_below` is to be empty. A database that takes no connections yet has
    `patience_seconds`.
    """
    output = io.BytesIO()
    silence_seconds = min(_SILENCE_SECONDS, patience_seconds)
    patience = {"STACKWARD_PATIENCE": f"{patience_seconds:.0f}", "STACKWARD_SILENCE": f"{silence_seconds:.0f}"}
    command = ["sh", "-c", _SCRIPT]
    stall_seconds = patience_seconds + _STALL_SECONDS
    try:
        done = docker.exec_to_file(container.id, command, output, stall_seconds=stall_seconds, environment=patience)
    except (DockerError, HookTimeout) as error:
        return Found(wrong=error.message)
    said = output.getvalue().decode("utf-8", "backslashreplace")
    own = held.get(service.name) or frozenset()
    cluster = _CLUSTER_LINE.search(said)
    if cluster is not None and (identifier := int(cluster[1]) % 2**64) not in own:
        others = [display(name) for name, one in held.items() if identifier in one]
        return _of_another(others, own) if others else _anew(definition, cluster[2], own, empty_below)
    if done.exit_code:
        words = display(done.output_tail.strip())[-500:]
        if done.exit_code == _UNREACHABLE and not own and not _is_server(service, definition):
            return Found(note=f"no database runs in it, and the backup holds none for it: {_NOTHING} ({words})")
        return Found(wrong=f"the probe ended with exit code {done.exit_code}: {words}")
    if not own:
        return _anew(definition, "", own, empty_below)
    lines = _COUNT_LINE.findall(said)
    found = tuple(Count(container.service, name, int(rows), int(tables)) for rows, tables, name in lines)
    return Found(found, wrong="" if found else "there is no database in it")


def _of_another(others: Sequence[str], own: frozenset[int]) -> Found:
    """It has a client's settings."""
    answers = f"the database of {', '.join(others)} answers"
    if own:
        return Found(wrong=f"{answers} where its own is asked for: this proves nothing of what the backup holds for it")
    return Found(note=f"a client, {answers} it: {_NOTHING}")


def _anew(definition: Mapping[str, Any], directory: str, held: frozenset[int], empty_below: str) -> Found:
    """Not what was backed up. Whoever said that its data may start empty knows that."""
    mounts = [one for one in definition.get("volumes") or [] if _covers(str(one.get("target") or "/"), directory)]
    nearest: Mapping[str, Any] = max(mounts, key=lambda one: len(str(one.get("target"))), default={})
    memory = [str(one).partition(":")[0] for one in definition.get("tmpfs") or []]
    is_named = nearest.get("type") == "volume" and nearest.get("source")
    if (
        is_named
        or within(str(nearest.get("source")), empty_below)
        or nearest.get("type") == "tmpfs"
        or any(_covers(one, directory) for one in memory)
    ):
        return Found(note=f"it starts empty, as it is to: {_NOTHING}")
    where = f" in {display(directory)}" if directory else ""
    had = "not the one that the backup holds" if held else "and the backup holds none for it"
    return Found(wrong=f"the database{where} was made anew when it started, {had}: this proves nothing of the backup")


def _covers(target: str, directory: str) -> bool:
    return bool(directory) and (directory + "/").startswith(target.rstrip("/") + "/")


def _clusters_below(source: str) -> Iterator[int]:
    """What a backup holds is its stack's: no link in it is followed, and no pipe waited for."""
    with suppress(OSError, RefusedError), tree_root.opened(Path(os.path.realpath(source))) as root:
        todo = [(b"", 0)]
        for _ in range(_DIRECTORIES):
            if not todo:
                return
            directory, depth = todo.pop(0)
            if (found := _identifier(root, directory)) is not None:
                yield found
            elif depth < _DEPTH:
                todo += [(path, depth + 1) for path in _directories(root, directory)]


def _directories(root: TreeRoot, directory: bytes) -> list[bytes]:
    found = []
    with suppress(OSError, RefusedError):
        for entry, name in tree_root.entries(directory, below=root.descriptor):
            if entry.is_dir(follow_symlinks=False):
                found.append(os.path.join(directory, name))
    return sorted(found)


def _identifier(root: TreeRoot, directory: bytes) -> int | None:
    """A cluster's own number is what its control file begins with; two have never the same one."""
    try:
        with open(root.open_file(os.path.join(directory, _CONTROL)), "rb") as file:
            first = file.read(8)
    except OSError:
        return None
    return int.from_bytes(first, sys.byteorder) if len(first) == 8 else None
