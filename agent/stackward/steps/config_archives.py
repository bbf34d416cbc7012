"""Opens what config backups are made of: read once into a private file and hashed, so that what was proven is what is used.

BACKUP_ROOT may be a share that others write to: between two readings of one file there may be another file.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from stackward.config import Settings
from stackward.core.artifacts import CHECKSUM_SUFFIX, SIGNATURE_SUFFIX, ArtifactKind
from stackward.core.errors import NO_ROOM, DiskFullError
from stackward.core.model import display
from stackward.steps import signing
from stackward.steps.catalog import Artifact
from stackward.steps.signing import Signer
from stackward.tools import age, beneath, manifest, small_files

IDENTITY = "age.key"  # below the configuration directory, where `stackward init` puts it
_CHUNK = 1 << 20
_SMALL = 64 << 10


@dataclass(frozen=True, slots=True)
class Opened:
    """A tarball or capsule in a private file. `damage` says that it is not as its checksum says, `warning` that it has none."""

    artifact: Artifact
    file: IO[bytes]
    signer: Signer
    damage: str = ""
    warning: str = ""

    @contextmanager
    def plain(self, identity: Path) -> Iterator[IO[bytes]]:
        """From its beginning, to be read to its end; of a capsule as `identity` opens it.

        Raises:
            RefusedError, CommandError, OSError: as `age.decrypting` does.
        """
        self.file.seek(0)
        if self.artifact.kind is ArtifactKind.SECRETS:
            with age.decrypting(identity, self.file) as plain:
                yield plain
        else:
            yield self.file


@contextmanager
def opened(settings: Settings, artifact: Artifact) -> Iterator[Opened]:
    """Read the whole artifact; it is the private file that counts from then on.

    Raises:
        DiskFullError: there is no room for it in the state directory.
        LinkOnTheWayError, OSError: it cannot be read.
    """
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=settings.state_dir) as file:
        found = hashlib.sha256()
        with beneath.opened(artifact.path) as descriptor:
            while chunk := os.read(descriptor, _CHUNK):
                found.update(chunk)
                _write(file, chunk, settings)
        file.flush()
        checksum = _small(artifact.checksum_path)
        expected = manifest.format_line(found.hexdigest(), os.fsencode(artifact.name.name))
        damage = warning = ""
        if checksum is None:
            warning = f"no {artifact.checksum_path.name}: its content cannot be compared"
        elif not checksum.lower().startswith(expected[:64]):
            damage = f"its SHA-256 is {found.hexdigest()}, not {display(checksum[:64].decode('ascii', 'replace'))}"
        signature = _small(artifact.path.with_name(artifact.path.name + SIGNATURE_SUFFIX)) or b""
        # What was signed is a line with the name and the hash of what was read just now.
        signer = signing.signer_of(settings, expected, signature)
        yield Opened(artifact, file, signer, damage, warning)


def claimed_signer(settings: Settings, artifact: Artifact) -> Signer:
    """Who signed the checksum that lies beside an artifact; whether the artifact is as that says is not looked at."""
    checksum, signature = (
        _small(artifact.path.with_name(artifact.name.name + s)) for s in (CHECKSUM_SUFFIX, SIGNATURE_SUFFIX)
    )
    return signing.signer_of(settings, checksum or b"", signature or b"")


def _write(file: IO[bytes], chunk: bytes, settings: Settings) -> None:
    try:
        file.write(chunk)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise DiskFullError.at(display(settings.state_dir)) from error
        raise


def _small(path: Path) -> bytes | None:
    try:
        return small_files.read(path, _SMALL, follow=False)
    except FileNotFoundError:
        return None
