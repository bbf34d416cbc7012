"""The appliance's signature on its config backups: which of them it made itself, whatever else lies in BACKUP_ROOT.

It is over the content of the `.sha256` file, which names the backup and its hash: so no backup passes for another. The key is
made on the first need, lies in the state directory, and goes into the secrets capsule; its public half is on the recovery sheet.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from stackward.config import Settings
from stackward.tools import filesystem, signatures, small_files

NAMESPACE = "stackward-config"
TRUSTED = (
    "trusted_signers"  # in the configuration directory: public keys of other appliances that this one takes for its own
)
_BYTES = 64 << 10


class Signer(StrEnum):
    """The signer of a backup."""

    OWN = "this appliance"
    TRUSTED = "a trusted signer"
    OTHER = "another appliance"
    NONE = "no one"

    @property
    def trusted(self) -> bool:
        return self in (Signer.OWN, Signer.TRUSTED)


def key_file(settings: Settings) -> Path:
    """The private key; made where it is not there yet. Raises CommandError, OSError."""
    path = settings.state_dir / "signing" / "id_ed25519"
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        incoming = path.with_name("incoming")
        for left in (incoming, incoming.with_name("incoming.pub")):
            filesystem.remove(left)
        signatures.make_key(incoming, "stackward")
        filesystem.replace(incoming.with_name("incoming.pub"), _public(path))
        filesystem.replace(incoming, path)
        filesystem.sync_parents(path)
    return path


def public_key(settings: Settings) -> str:
    """The public half, `ssh-ed25519 …`; "" where there is none yet."""
    path = _public(settings.state_dir / "signing" / "id_ed25519")
    try:
        return next(iter(signatures.keys_in(small_files.read(path, _BYTES).decode("ascii", "replace"))), "")
    except OSError:
        return ""


def sign(settings: Settings, checksum: bytes) -> bytes:
    """The signature for a `.sha256` file with this content. Raises CommandError, OSError."""
    return signatures.sign(key_file(settings), NAMESPACE, checksum)


def signer_of(settings: Settings, checksum: bytes, signature: bytes) -> Signer:
    """Tell who signed a `.sha256` file; `signature` is empty where there is none."""
    if not signature:
        return Signer.NONE
    own = public_key(settings)
    if own and signatures.is_signed(checksum, signature, NAMESPACE, [own]):
        return Signer.OWN
    trusted = _trusted(settings)
    return Signer.TRUSTED if signatures.is_signed(checksum, signature, NAMESPACE, trusted) else Signer.OTHER


def _public(key: Path) -> Path:
    return key.with_name(key.name + ".pub")


def _trusted(settings: Settings) -> list[str]:
    try:
        text = small_files.read(settings.config_dir / TRUSTED, _BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    return signatures.keys_in(text)
