"""The names of the host's systemd units that belong to stacks."""

from __future__ import annotations

import os

STAGING_TARGET = "stackward-staging.target"
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:_.")


def escape(name: str) -> str:
    r"""A stack's name as `systemd-escape` writes it: `my-app` becomes `my\x2dapp` (systemd.unit(5), "String Escaping")."""
    escaped = []
    for position, byte in enumerate(os.fsencode(name)):
        if byte == ord("/"):
            escaped.append("-")
        elif byte in _PLAIN and not (position == 0 and byte == ord(".")):
            escaped.append(chr(byte))
        else:
            escaped.append(f"\\x{byte:02x}")
    return "".join(escaped)


def stack_unit(stack: str) -> str:
    return f"docker-compose@{escape(stack)}.service"


def staging_unit(stack: str) -> str:
    return f"docker-compose-staging@{escape(stack)}.service"
