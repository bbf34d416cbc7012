"""What options of several verbs take, and how they refuse the rest."""

from __future__ import annotations

from argparse import ArgumentTypeError

_MOST = 1_000_000


def count(text: str) -> int:
    """A number of things to show; raises ArgumentTypeError that says which there may be."""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= len(str(_MOST)) else 0
    if not 1 <= number <= _MOST:
        raise ArgumentTypeError(f"must be a number from 1 to {_MOST}, not {text!r}")
    return number
