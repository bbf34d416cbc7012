"""Which of a stack's files hold secrets: they go into the capsule, never into the config tarball."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackward.core.secret_names import HEAD_BYTES, has_private_key, is_secret_name, may_be_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from stackward.tools.host_files import HostFiles

_DEPTH = 4
_ENTRIES = 20_000
_SKIPPED = frozenset({".git", "node_modules"})


@dataclass(frozen=True, slots=True)
class Found:
    """`files` are real paths of files that are there.

    What is at the paths of the others here, if anything, is never read: of those that compose files name (`unseen`), and of
    links in the stack's directory that are called like secrets (`strays`).
    """

    files: tuple[Path, ...]
    unseen: tuple[Path, ...] = ()
    strays: tuple[Path, ...] = ()


def find(
    directory: Path, model: Mapping[str, Any], env_files: Iterable[Path], trees: Iterable[Path], host: HostFiles
) -> Found:
    """Env files, files of `secrets:`, acme.json, private keys outside the trees."""
    declared = model.get("secrets") or {}
    files = [Path(secret["file"]) for secret in declared.values() if isinstance(secret, dict) and secret.get("file")]
    named = list(dict.fromkeys([*env_files, directory / ".env", *files]))
    keys = list(_keys(directory, frozenset(trees), host))
    refused = {path for path in (*named, *keys) if host.refusal(path)}
    real = {Path(os.path.realpath(path)) for path in (*named, *keys) if path not in refused}
    return Found(
        tuple(sorted((path for path in real if path.is_file()), key=os.fsencode)),
        tuple(path for path in named if path in refused),
        tuple(path for path in keys if path in refused and path not in named),
    )


def _keys(directory: Path, trees: frozenset[Path], host: HostFiles) -> Iterator[Path]:
    """Bounded in depth and number: a stack's directory is configuration, what is large lies in trees."""
    todo = [(directory, 0)]
    seen = 0
    while todo:
        here, depth = todo.pop()
        try:
            entries = list(os.scandir(here))
        except OSError:
            continue
        for entry in entries:
            if (seen := seen + 1) > _ENTRIES:
                return
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                inner = depth + 1 < _DEPTH and entry.name not in _SKIPPED and not (depth == 0 and entry.name == "data")
                if inner and Path(os.path.realpath(path)) not in trees:
                    todo.append((path, depth + 1))
            elif _is_secret(path, host):
                yield path


def _is_secret(path: Path, host: HostFiles) -> bool:
    name = os.fsencode(path.name)
    return is_secret_name(name) or (may_be_key(name) and not host.refusal(path) and _holds_private_key(path))


def _holds_private_key(path: Path) -> bool:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            return has_private_key(file.read(HEAD_BYTES))
    except OSError:
        return False
