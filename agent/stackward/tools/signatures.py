"""Signatures by `ssh-keygen -Y` with an Ed25519 key: anybody who has the public half can check them with OpenSSH alone."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from stackward.tools import process

_SIGNER = "stackward"  # the principal under which keys are listed for the check
_KEY = re.compile(r"(?:^|\s)((?:sk-)?(?:ssh|ecdsa)-[\w@.-]+ [A-Za-z0-9+/=]+)")


def make_key(path: Path, comment: str) -> None:
    """Make a key pair without a passphrase: `path` (mode 0600) and `path`.pub. Raises CommandError."""
    process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path])


def sign(key: Path, namespace: str, content: bytes) -> bytes:
    """The signature, as ssh-keygen writes it into a `.sig` file. Raises CommandError."""
    return process.run(["ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", namespace], stdin=content).stdout


def is_signed(content: bytes, signature: bytes, namespace: str, keys: Iterable[str]) -> bool:
    """Tell whether one of the public keys (`TYPE BASE64`) signed exactly this content."""
    allowed = "".join(f'{_SIGNER} namespaces="{namespace}" {key}\n' for key in keys)
    if not allowed:
        return False
    with tempfile.TemporaryDirectory(prefix="stackward-") as directory:
        signers, sig = os.path.join(directory, "signers"), os.path.join(directory, "sig")
        Path(signers).write_text(allowed, encoding="ascii")
        Path(sig).write_bytes(signature)
        argv = ["ssh-keygen", "-Y", "verify", "-f", signers, "-I", _SIGNER, "-n", namespace, "-s", sig]
        return process.run(argv, stdin=content, ok=(0, 255, 1)).returncode == 0


def keys_in(text: str) -> list[str]:
    """The public keys in lines as OpenSSH has them (`.pub`, authorized_keys, allowed_signers), without options and comments."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return [match[1] for match in map(_KEY.search, lines) if match]
