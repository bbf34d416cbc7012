"""Opens what config backups are made of, to be read as a tar archive."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from stackward.tools import age

IDENTITY = "age.key"  # below the configuration directory, where `stackward init` puts it


@contextmanager
def opened(tarball: Path) -> Iterator[IO[bytes]]:
    """As it is. Raises OSError."""
    with open(tarball, "rb") as file:
        yield file


@contextmanager
def opened_capsule(capsule: Path, identity: Path) -> Iterator[IO[bytes]]:
    """In plain, to be read to the end.

    Raises:
        RefusedError, CommandError, OSError: as `age.decrypting` does.
    """
    with open(capsule, "rb") as file, age.decrypting(identity, file) as plain:
        yield plain
