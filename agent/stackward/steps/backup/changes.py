"""What the send stream between two snapshots of a subvolume says of a tree: where to look.

What it says is used for nothing else, but for the extents of large files (in_place), which are compared afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from stackward.steps.backup import in_place
from stackward.tools.sendstream import Command, Kind, SendStreamError

_ATTRIBUTES = frozenset({Kind.SET_XATTR, Kind.REMOVE_XATTR, Kind.CHMOD, Kind.CHOWN, Kind.UTIMES})
_FRAMES = frozenset({Kind.SUBVOL, Kind.SNAPSHOT})
_EXTENTS = frozenset({Kind.UPDATE_EXTENT, Kind.WRITE, Kind.CLONE})


@dataclass(frozen=True, slots=True)
class Changes:
    """Where a tree changed; paths are relative to it, b"" is the tree itself."""

    content: frozenset[bytes]
    attributes: frozenset[bytes]
    whole: frozenset[bytes]  # directories to be looked at with all that is in them
    extents: Mapping[bytes, Sequence[in_place.Extent]]  # files that changed in these places, and in size

    @property
    def paths(self) -> frozenset[bytes]:
        return self.content | self.attributes | self.whole | self.extents.keys()


def account(commands: Iterable[Command], tree: bytes) -> Changes:
    """Where `tree` (relative to the subvolume, b"" for all of it) changed.

    Raises:
        SendStreamError: the tree, or a directory on the way to it, was itself moved or made anew.
    """
    content: set[bytes] = set()
    attributes: set[bytes] = set()
    whole: set[bytes] = set()
    extents: dict[bytes, list[in_place.Extent]] = {}
    for command in commands:
        if command.kind in _FRAMES:
            continue
        if command.kind in _ATTRIBUTES:
            _note(attributes, command.path, tree)
        elif command.kind in _EXTENTS or command.kind is Kind.TRUNCATE:
            if (path := _within(command.path, tree)) is not None:
                places = extents.setdefault(path, [])
                if command.kind in _EXTENTS:
                    _append(places, command.offset, command.size)
        elif command.kind is Kind.RENAME:
            _refuse_way(command.path, tree)
            _refuse_way(command.other, tree)
            _note(content, command.path, tree)
            _note(whole, command.other, tree)
        elif command.kind is Kind.MKDIR:
            _refuse_way(command.path, tree)
            _note(whole, command.path, tree)
        else:
            if command.kind in (Kind.UNLINK, Kind.RMDIR):
                _refuse_way(command.path, tree)
            _note(content, command.path, tree)
    return Changes(frozenset(content), frozenset(attributes), frozenset(whole), extents)


def _note(paths: set[bytes], path: bytes, tree: bytes) -> None:
    if (within := _within(path, tree)) is not None:
        paths.add(within)


def _within(path: bytes, tree: bytes) -> bytes | None:
    """A path relative to the tree; None where it is not in it."""
    if not tree:
        return path
    if path == tree:
        return b""
    return path[len(tree) + 1 :] if path.startswith(tree + b"/") else None


def _append(places: list[in_place.Extent], offset: int, size: int) -> None:
    """Add an extent; one that follows the last makes that longer."""
    if places and sum(places[-1]) == offset:
        offset, size = places[-1][0], places[-1][1] + size
        places.pop()
    places.append((offset, size))


def _refuse_way(path: bytes, tree: bytes) -> None:
    if tree and (tree == path or tree.startswith(path + b"/")):
        raise SendStreamError(f"{os.fsdecode(path)!r} was moved or made anew")
