"""Which files hold secrets, told by their names and first bytes. In doubt it is one: the capsule restores it too."""

from __future__ import annotations

import re

HEAD_BYTES = 1 << 16

_EXAMPLES = frozenset({b"example", b"examples", b"sample", b"template", b"tmpl", b"dist", b"default", b"defaults"})
_PARTS = re.compile(rb"[._-]")
ALWAYS = frozenset({b"acme.json", b".pgpass", b".netrc", b".git-credentials", b".htpasswd"})
CONTAINERS = (b".p12", b".pfx", b".jks")
KEY_SUFFIXES = (b".key", b".pem", b".ppk", b".asc")
_KEY_NAMES = frozenset({b"key.txt", b"keys.txt", b"identity.txt", b"id_rsa", b"id_dsa", b"id_ecdsa", b"id_ed25519"})
_MARKERS = (b"PRIVATE KEY-----", b"PRIVATE KEY BLOCK-----", b"AGE-SECRET-KEY-", b"PuTTY-User-Key-File")
_DIRECTORIES = frozenset({b"secrets", b".secrets"})


def is_secret_name(name: bytes) -> bool:
    """`.env`, `.env.production`, `db.env`, `acme.json`; but not `.env.example`, which is documentation."""
    lower = name.lower()
    if lower.startswith(b".env") or lower.endswith(b".env"):
        return not _EXAMPLES.intersection(_PARTS.split(lower))
    return lower in ALWAYS or lower.endswith(CONTAINERS)


def may_be_key(name: bytes) -> bool:
    """Whether a look at the file's first HEAD_BYTES must tell (`has_private_key`)."""
    lower = name.lower()
    return lower.endswith(KEY_SUFFIXES) or lower in _KEY_NAMES


def has_private_key(head: bytes) -> bool:
    return any(marker in head for marker in _MARKERS)


def is_secret_directory(name: bytes) -> bool:
    return name.lower() in _DIRECTORIES
