"""Rules for all records that one version of the appliance writes and another one reads.

A record says its `format` and, in `requires`, what a reader must understand to act on it. Everything else may be added at
any time: a key that this version does not know is ignored. A newer format, a requirement or a step that it does not know
means that the record is kept, told, and left for the version that knows it; it is neither acted on nor removed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any, NoReturn

FORMAT = 1
# What this version understands of the requirements that records, backups and the store may name. A name that was once
# released keeps its meaning for ever.
FILE_HANDLES = "file-handles"  # what restores keep is told from what replaced it by its file handle; copies of it, too
FEATURES: frozenset[str] = frozenset({FILE_HANDLES})
REQUIRES = "requires"
LARGEST_BYTES = 64 << 20
_DEEPEST = 16


class NewerRecordError(ValueError):
    """A newer version made it, and this one must not act on it; the message names what it does not know."""


def parse(text: str | bytes) -> dict[str, Any]:
    """A record's document. Raises ValueError for what is no JSON object, too large, or nested too deeply."""
    if len(text) > LARGEST_BYTES:
        raise ValueError("it is too large")
    try:
        document = json.loads(text, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - readers of records expect ValueError
    _require_shallow(document, _DEEPEST)
    return document


def _require_shallow(value: object, levels: int) -> None:
    if not isinstance(value, (dict, list)):
        return
    if not levels:
        raise ValueError("it is nested too deeply")
    for inner in value.values() if isinstance(value, dict) else value:
        _require_shallow(inner, levels - 1)


def require_understood(
    document: Mapping[str, Any], *, newest: int = FORMAT, features: Collection[str] = FEATURES
) -> None:
    """A record without a format is of the first one, one without requirements has none.

    Raises:
        NewerRecordError: its format is newer, or it requires what this version does not know.
        ValueError: either is no format or no list of requirements.
    """
    found = document.get("format", 1)
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise ValueError(f"its format is {str(found)[:40]!r}, which is none")
    if found > newest:
        raise NewerRecordError(f"a newer version made it (format {found}, this one reads {newest})")
    require_features(requirements(document.get(REQUIRES, ())), features=features)


def requirements(found: object) -> tuple[str, ...]:
    """The requirements of a record. Raises ValueError where that is no list of words."""
    if not isinstance(found, (list, tuple)) or not all(isinstance(one, str) for one in found):
        raise ValueError(f"{REQUIRES} is no list of words")
    return tuple(found)


def require_features(required: Collection[str], *, features: Collection[str] = FEATURES) -> None:
    """Raises NewerRecordError where this version does not know all of them."""
    if unknown := sorted(set(required) - set(features)):
        raise NewerRecordError(f"a newer version made it (it requires {', '.join(unknown)})")


def known(kind: type, document: object) -> dict[str, Any]:
    """The entries of `document` that are fields of the dataclass `kind`; other keys are a newer version's, and ignored.

    Raises:
        NewerRecordError: the part names a requirement of its own that this version does not know.
        ValueError: it is no JSON object.
    """
    if not isinstance(document, Mapping):
        raise ValueError(f"{str(document)[:40]!r} is no JSON object")  # noqa: TRY004 - as above
    require_features(requirements(document.get(REQUIRES, ())))
    names = {field.name for field in fields(kind)}
    return {key: value for key, value in document.items() if key in names}


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")
