"""find: in which backups a file is, and how to get it back."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from stackward.config import Settings
from stackward.core.artifacts import DUMPS, MANIFEST, ArtifactKind
from stackward.core.errors import RefusedError, SettingsError
from stackward.core.model import JobResult, Outcome, display
from stackward.core.progress import Progress
from stackward.steps import artifact_files, catalog
from stackward.steps.catalog import Artifact
from stackward.tools import manifest, process

_ESCAPE = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
_LETTERS = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
SHOWN = 1000  # paths that are named; the rest are counted


@dataclass(slots=True)
class Found:
    """A path of a stack (or of the configuration, with stack ""), and the backups it is in, newest first."""

    stack: str
    path: str
    backups: list[str] = field(default_factory=list)
    versions: set[str] = field(default_factory=set)  # digests, where they are known


def run(*, settings: Settings, name: str, stack: str | None = None, now: datetime, progress: Progress) -> JobResult:
    """Look for `name` in all backups that are listed: a part of a file's or directory's name, or a pattern with * and ?.

    With a `/` in it, `name` is a part of the whole path.

    Raises:
        RefusedError: BACKUP_ROOT cannot be read.
        SettingsError: `name` is empty.
    """
    if not name.strip("/"):
        raise SettingsError("find needs a name to look for")
    matches = matcher(os.fsencode(name))
    found: dict[tuple[str, str], Found] = {}
    warnings = []
    for artifact in catalog.catalog(settings, now):
        if stack is not None and stack not in artifact.stacks:
            continue
        progress.step(f"looking through {artifact.name.name}")
        try:
            for owner, path, digest in _contents(artifact, matches):
                if stack is None or owner == stack:
                    one = found.setdefault((owner, path), Found(owner, path))
                    one.backups += [artifact.name.name] if artifact.name.name not in one.backups[-1:] else []
                    one.versions.add(digest)
        except FileNotFoundError:
            continue  # pruned meanwhile
        except (OSError, ValueError, RefusedError, process.CommandError) as error:
            warnings.append(f"{artifact.name.name} could not be looked through: {error}")
    listed = sorted(found.values(), key=lambda one: (one.stack, one.path))
    return JobResult(
        outcome=Outcome.WARN if warnings else Outcome.OK,
        reasons=tuple(warnings),
        details={"found": [_shown(one) for one in listed[:SHOWN]], "more": max(0, len(listed) - SHOWN)},
    )


def matcher(name: bytes) -> Callable[[bytes], bytes | None]:
    """A function from a path to its beginning up to the part that matches (a directory's own path), or None."""
    wanted = name.strip(b"/").lower()
    if not re.search(rb"[*?\[]", wanted):
        wanted = b"*" + re.sub(rb"([*?\[])", rb"[\1]", wanted) + b"*"
    pattern = re.compile(fnmatch.translate(wanted.decode("latin-1")).encode("latin-1"), re.DOTALL)
    if b"/" in wanted:
        anywhere = re.compile(fnmatch.translate("*" + wanted.decode("latin-1")).encode("latin-1"), re.DOTALL)
        return lambda path: path if anywhere.match(path.lower()) else None

    def by_part(path: bytes) -> bytes | None:
        end = 0
        for part in path.split(b"/"):
            end += len(part) + 1
            if pattern.match(part.lower()):
                return path[: end - 1]
        return None

    return by_part


def _contents(artifact: Artifact, matches: Callable[[bytes], bytes | None]) -> Iterator[tuple[str, str, str]]:
    """Stack, path within it as `restore` takes it, and digest ("" where none is known) of what matches."""
    if artifact.kind is ArtifactKind.CONFIG:
        with open(artifact_files.open_file(artifact.path), "rb") as file:
            argv = ["tar", "--list", "--gzip", "--quoting-style=escape", "--file=-"]
            for line in process.lines(argv, stdin=file):
                if (hit := matches(_unescaped(line).removeprefix(b"./").rstrip(b"/"))) is not None:
                    yield "", os.fsdecode(hit), ""
        return
    if artifact.kind is not ArtifactKind.DATA:
        return
    trees = {
        os.fsencode(tree.path): (stack, os.fsencode(tree.mount_name))
        for stack in artifact.stacks
        for tree in artifact.trees(stack)
    }
    trees |= {os.fsencode(f"{DUMPS}/{stack}"): (stack, os.fsencode(DUMPS)) for stack in artifact.stacks}
    for digest, path in _lines(artifact):
        for depth in (1, 2, 3):
            parts = path.split(b"/", depth)
            if len(parts) <= depth or (owner := trees.get(b"/".join(parts[:depth]))) is None:
                continue
            if (hit := matches(parts[depth])) is not None:
                whole = hit == parts[depth]
                yield owner[0], os.fsdecode(owner[1] + b"/" + hit), digest if whole else ""
            break


def _lines(artifact: Artifact) -> Iterator[manifest.Line]:
    with artifact_files.opened(artifact.path) as root:
        if root.status(os.fsencode(MANIFEST)) is None:
            yield from (("", path) for path in artifact_files.walk(root))
            return
        with open(root.open_file(os.fsencode(MANIFEST)), "rb") as file:
            yield from manifest.read(file)


def _unescaped(name: bytes) -> bytes:
    """A name as GNU tar's quoting style `escape` has it: a name with a newline is one line, too."""
    return _ESCAPE.sub(lambda found: _octal_or_letter(found[1]), name)


def _octal_or_letter(code: bytes) -> bytes:
    return bytes([int(code, 8) & 0xFF]) if code.isdigit() else _LETTERS.get(code, code)


def _shown(one: Found) -> dict[str, object]:
    known = one.versions - {""}
    return {
        "stack": display(one.stack),
        "path": display(one.path),
        "backups": one.backups,
        "versions": len(known) or None,
        "restore": _command(one),
    }


def _command(one: Found) -> str:
    """What gets the newest one back, to be pasted into a shell; of the configuration, the stack that it is of."""
    if not one.stack:
        return f"stackward restore config {_quoted(one.path.split('/')[0])} --from {one.backups[0]}"
    if one.path.startswith(f"{DUMPS}/"):
        return f"stackward restore {_quoted(one.stack)} --to DIR --from {one.backups[0]}"
    return f"stackward restore {_quoted(f'{one.stack}:{one.path}')} --from {one.backups[0]}"


def _quoted(word: str) -> str:
    """As a shell reads it; a name that no terminal shows as it is, in bash's $'…'."""
    if word.isprintable():
        return shlex.quote(word)
    escaped = "".join(
        f"\\{byte:03o}" if byte < 0x20 or byte >= 0x7F or byte in b"\\'" else chr(byte) for byte in os.fsencode(word)
    )
    return f"$'{escaped}'"
