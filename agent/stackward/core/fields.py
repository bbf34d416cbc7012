"""The fields of a parsed document whose writer is not trusted: each of its type, and no larger than anybody needs."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

TEXT = 1 << 16
LONGEST_PATH = 4096
MANY = 100_000
LARGEST = 1 << 63


class Fields:
    """One JSON object. Every method raises ValueError where the field is not what it must be; a default makes it optional."""

    def __init__(self, document: object, what: str) -> None:
        if not isinstance(document, Mapping):
            raise ValueError(f"{what} is no JSON object")  # noqa: TRY004 - what is read is wrong, not who reads it
        self._document: Mapping[str, Any] = document
        self._what = what

    def text(self, key: str, default: str | None = None) -> str:
        found = self._found(key, default)
        if not isinstance(found, str) or not _is_text(found):
            raise self._wrong(key, "text")
        return found

    def text_or_none(self, key: str) -> str | None:
        return None if self._found(key, None, optional=True) is None else self.text(key)

    def count(self, key: str, default: int | None = None) -> int:
        found = self._found(key, default)
        if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < LARGEST:
            raise self._wrong(key, "a number of anything")
        return found

    def seconds(self, key: str, default: float | None = None) -> float:
        found = self._found(key, default)
        is_number = isinstance(found, (int, float)) and not isinstance(found, bool)
        if not is_number or not math.isfinite(found) or not 0 <= found < LARGEST:
            raise self._wrong(key, "a time in seconds")
        return float(found)

    def seconds_or_none(self, key: str) -> float | None:
        return None if self._found(key, None, optional=True) is None else self.seconds(key)

    def flag(self, key: str, default: bool | None = None) -> bool:
        found = self._found(key, default)
        if not isinstance(found, bool):
            raise self._wrong(key, "true or false")
        return found

    def instant(self, key: str, default: str | None = None) -> str:
        """An ISO 8601 time with its offset, as it was written; the default may be anything."""
        text = self.text(key, default)
        if text == default:
            return text
        try:
            if datetime.fromisoformat(text).utcoffset() is not None:
                return text
        except (ValueError, OverflowError):
            pass
        raise self._wrong(key, "a time with an offset")

    def path(self, key: str, default: str | None = None) -> str:
        """An absolute path without `.`, `..` or an empty part."""
        text = self.text(key, default)
        if text != default and not is_plain_path(text):
            raise self._wrong(key, "a plain absolute path")
        return text

    def list(self, key: str, default: tuple[Any, ...] | None = None) -> list[Any]:
        found = self._found(key, default)
        if not isinstance(found, (list, tuple)) or len(found) > MANY:
            raise self._wrong(key, "a list")
        return list(found)

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        found = self.list(key, default)
        if not all(isinstance(one, str) and _is_text(one) for one in found):
            raise self._wrong(key, "a list of texts")
        return tuple(found)

    def mapping(self, key: str, default: Mapping[str, Any] | None = None) -> dict[str, Any]:
        found = self._found(key, default)
        if not isinstance(found, Mapping) or len(found) > MANY or not all(_is_text(one) for one in found):
            raise self._wrong(key, "a JSON object")
        return dict(cast("Mapping[str, Any]", found))

    def inner(self, key: str, name: str) -> dict[str, Any]:
        """The JSON object `name` in the JSON object `key`."""
        return Fields(self.mapping(key), f"{key} of {self._what}").mapping(name)

    def words(self, key: str) -> dict[str, str]:
        """A JSON object of texts; none where there is none."""
        found = self.mapping(key, {})
        inner = Fields(found, f"{key} of {self._what}")
        return {name: inner.text(name) for name in found}

    def _found(self, key: str, default: object, *, optional: bool = False) -> Any:
        if key in self._document:
            return self._document[key]
        if default is None and not optional:
            raise ValueError(f"{self._what} has no {key}")
        return default

    def _wrong(self, key: str, what: str) -> ValueError:
        return ValueError(f"{self._what}: its {key} is not {what}")


def is_plain_path(text: str) -> bool:
    """Tell whether it is an absolute path without `.`, `..` or empty parts, and not the root."""
    return (
        text.startswith("/")
        and "\0" not in text
        and len(os.fsencode(text)) <= LONGEST_PATH
        and all(part not in ("", ".", "..") for part in text[1:].split("/"))
    )


def _is_text(text: str) -> bool:
    try:
        return len(os.fsencode(text)) <= TEXT
    except UnicodeEncodeError:
        return False  # a surrogate that stands for no byte
