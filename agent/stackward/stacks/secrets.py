"""Which of a stack's files hold secrets: they go into the capsule, never into the config tarball."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackward.core.secret_names import HEAD_BYTES, has_private_key, is_secret_name, may_be_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from stackward.tools.host_files import HostFiles

_DEPTH = 4
_ENTRIES = 20_000
_SKIPPED = frozenset({".git", "node_modules"})


def find(
    directory: Path, model: Mapping[str, Any], env_files: Iterable[Path], trees: Iterable[Path], host: HostFiles
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Real paths of files that are there: env files, files of `secrets:`, acme.json, private keys outside the trees.

    And, as they are named, those that `host` refuses: what is at their paths here, if anything, is never read.
    """
    declared = model.get("secrets") or {}
    named = [Path(secret["file"]) for secret in declared.values() if isinstance(secret, dict) and secret.get("file")]
    paths = dict.fromkeys([*env_files, directory / ".env", *named, *_keys(directory, frozenset(trees), host)])
    refused = tuple(path for path in paths if host.refusal(path))
    real = (Path(os.path.realpath(path)) for path in paths if path not in refused)
    return tuple(sorted({path for path in real if path.is_file()}, key=os.fsencode)), refused


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
