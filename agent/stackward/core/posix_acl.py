"""POSIX access lists: between the text that archives hold and the attribute that file systems do.

The text is what acl_to_text(3) writes with numeric IDs (`user::rw-,user:1000:r--,…`), as GNU tar puts it into the keywords
SCHILY.acl.access and SCHILY.acl.default; the attribute is that of linux/posix_acl_xattr.h, version 2.
"""

from __future__ import annotations

import re
import struct

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
_VERSION = 2
_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")  # tag, permissions, ID
_NO_ID = 0xFFFFFFFF
_TAGS = {
    ("user", False): 1,
    ("user", True): 2,
    ("group", False): 4,
    ("group", True): 8,
    ("mask", False): 16,
    ("other", False): 32,
}
_NAMES = {tag: (word, named) for (word, named), tag in _TAGS.items()}
_SHORT = {"u": "user", "g": "group", "m": "mask", "o": "other"}
_LINE = re.compile(r"(\w+):(\d*):([r-])([w-])([x-])")


def from_text(text: str) -> bytes:
    """The attribute's value. Raises ValueError for what is no access list, or has names instead of IDs."""
    entries = []
    for line in re.split(r"[,\n]", text):
        plain = line.partition("#")[0].strip()
        if not plain:
            continue
        if (match := _LINE.fullmatch(plain)) is None:
            raise ValueError(f"{plain[:40]!r} is no entry of an access list")
        word = _SHORT.get(match[1], match[1])
        tag = _TAGS.get((word, bool(match[2])))
        if tag is None:
            raise ValueError(f"{plain[:40]!r} is no entry of an access list")
        bits = sum(bit for bit, letter in zip((4, 2, 1), match.groups()[2:], strict=True) if letter != "-")
        entries.append((tag, bits, int(match[2]) if match[2] else _NO_ID))
    if any(identity > _NO_ID for _tag, _bits, identity in entries):
        raise ValueError("an ID in an access list is too large")
    return _HEADER.pack(_VERSION) + b"".join(
        _ENTRY.pack(*entry) for entry in sorted(entries, key=lambda one: (one[0], one[2]))
    )


def is_mode(value: bytes) -> bool:
    """Tell whether a list has only the three entries that a file's mode expresses, too."""
    return len(value) == _HEADER.size + 3 * _ENTRY.size


def to_text(value: bytes) -> str:
    """The text of the attribute's value, entries separated by commas. Raises ValueError for what is none."""
    if len(value) < _HEADER.size or _HEADER.unpack_from(value)[0] != _VERSION or (len(value) - 4) % _ENTRY.size:
        raise ValueError("no access list of the known version")
    lines = []
    for tag, bits, identity in _ENTRY.iter_unpack(value[_HEADER.size :]):
        if tag not in _NAMES:
            raise ValueError(f"an access list with an entry of kind {tag}")
        word, named = _NAMES[tag]
        letters = "".join(letter if bits & bit else "-" for bit, letter in ((4, "r"), (2, "w"), (1, "x")))
        lines.append(f"{word}:{identity if named else ''}:{letters}")
    return ",".join(lines)
