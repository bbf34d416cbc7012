"""The age program: what it encrypts can be opened with `age --decrypt -i KEY` alone, anywhere."""

from __future__ import annotations

import os
from contextlib import contextmanager
from io import BytesIO
from typing import IO, TYPE_CHECKING, cast

from stackward.core.errors import RefusedError, SettingsError, StackwardError
from stackward.core.model import display
from stackward.tools import process

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from io import BufferedReader
    from pathlib import Path


@contextmanager
def encrypting(recipients: Sequence[str], destination: IO[bytes]) -> Iterator[IO[bytes]]:
    """A file to write plain bytes to; what arrives in `destination` only a recipient's identity opens.

    Raises:
        SettingsError: there is no recipient, or one that age does not take.
        CommandError: age failed.
    """
    argv = _encrypt(recipients)
    try:
        with process.fed(argv, stdout=destination) as sink:
            yield sink
    except process.CommandError as error:
        raise _explained(error) from error


def check_recipients(recipients: Sequence[str]) -> None:
    """Raises SettingsError when age would not encrypt to all of them, CommandError when there is no age."""
    try:
        process.run(_encrypt(recipients), stdin=b"")
    except process.CommandError as error:
        raise _explained(error) from error


@contextmanager
def decrypting(identity: Path, source: IO[bytes]) -> Iterator[IO[bytes]]:
    """The plain bytes of an encrypted file, to be read to the end.

    Raises:
        RefusedError: the identity is not there, or none of the recipients'.
        CommandError: the file is damaged, or no age file.
    """
    if not os.path.isfile(identity):
        raise RefusedError(
            f"the age identity {display(identity)} is not there",
            hint="give the key file that you kept (the recovery sheet says where) with --identity",
        )
    try:
        argv: list[process.Argument] = ["age", "--decrypt", "--identity", identity]
        with process.piped(argv, stdin=source, terminal=True) as plain:  # it may ask for the identity's passphrase
            something = bool(cast("BufferedReader", plain).peek(1))
            if something:
                yield plain
        if not something:  # and age is content: there was nothing in it
            yield BytesIO()
    except process.CommandError as error:
        if "no identity matched" in error.stderr_tail:
            raise RefusedError(
                f"the secrets were not encrypted for the identity {display(identity)}",
                hint="use the identity that belonged to STACKWARD_AGE_RECIPIENTS when the backup was made",
            ) from error
        raise


def recipients_of(identity: Path) -> tuple[str, ...]:
    """The public keys of an identity file. Raises CommandError when it is none."""
    return tuple(process.run(["age-keygen", "-y", identity]).text.split())


def generate_key(path: Path) -> str:
    """Make an identity file (mode 0600, never replacing one) and return its recipient.

    Raises:
        StackwardError: `path` is there already, or cannot be written.
    """
    if os.path.lexists(path):
        raise StackwardError(f"{display(path)} is there already; it is kept as it is")
    process.run(["age-keygen", "--output", path])
    os.chmod(path, 0o600)
    for place, flags in ((path, os.O_RDONLY), (path.parent, os.O_RDONLY | os.O_DIRECTORY)):
        descriptor = os.open(place, flags | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    (recipient,) = recipients_of(path)
    return recipient


def _encrypt(recipients: Sequence[str]) -> list[str]:
    if not recipients:
        raise SettingsError("no age recipient", hint="set STACKWARD_AGE_RECIPIENTS")
    if any(recipient.strip().upper().startswith("AGE-SECRET-KEY-") for recipient in recipients):
        raise SettingsError(
            "STACKWARD_AGE_RECIPIENTS holds a secret key", hint="give the recipient, which `age-keygen -y KEY` prints"
        )
    argv = ["age", "--encrypt"]
    for recipient in recipients:
        argv += ["--recipient", recipient]
    return argv


def _explained(error: process.CommandError) -> StackwardError:
    if "recipient" in error.stderr_tail:
        return SettingsError(
            f"STACKWARD_AGE_RECIPIENTS: {error.stderr_tail.splitlines()[0]}",
            hint="a recipient is what `age-keygen -y KEY` prints (age1…), or an SSH public key; never the secret key",
        )
    return error
