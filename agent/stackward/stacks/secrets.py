"""Which of a stack's files hold secrets: they go into the capsule, never into the config tarball."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_DEPTH = 4
_ENTRIES = 20_000
_KEY_SUFFIXES = (".key", ".pem")
_KEY_NAMES = frozenset({"id_rsa", "id_ed25519", "id_ecdsa"})
_ACME = "acme.json"
_HEAD_BYTES = 64 << 10
_SKIPPED = frozenset({".git", "node_modules"})


def find(
    directory: Path, model: Mapping[str, Any], env_files: Iterable[Path], trees: Iterable[Path]
) -> tuple[Path, ...]:
    """Real paths of files that are there: env files, files of `secrets:`, acme.json, private keys outside the trees."""
    declared = model.get("secrets") or {}
    named = [Path(secret["file"]) for secret in declared.values() if isinstance(secret, dict) and secret.get("file")]
    paths = [*env_files, directory / ".env", *named, *_keys(directory, frozenset(trees))]
    real = (Path(os.path.realpath(path)) for path in paths)
    return tuple(sorted({path for path in real if path.is_file()}, key=os.fsencode))


def _keys(directory: Path, trees: frozenset[Path]) -> Iterator[Path]:
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
            elif entry.name == _ACME or (_may_be_key(entry.name) and _holds_private_key(path)):
                yield path


def _may_be_key(name: str) -> bool:
    return name.lower().endswith(_KEY_SUFFIXES) or name in _KEY_NAMES


def _holds_private_key(path: Path) -> bool:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            return b"PRIVATE KEY" in file.read(_HEAD_BYTES)
    except OSError:
        return False
