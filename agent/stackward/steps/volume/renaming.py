"""Replays the names of a send stream: which paths are new, gone, elsewhere, or changed, once it has ended.

The stream turns one tree into another step by step, through names that neither of them has. Each thing that it touches is
a node here, which knows its path in the old tree and is moved about as the stream says; what stands where in the end is
read off the nodes. Pure; what the stream does not touch is never looked at.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from stackward.tools.sendstream import Command, Kind, SendStreamError

_FRAMES = frozenset({Kind.SUBVOL, Kind.SNAPSHOT})
_NEW = frozenset({Kind.MKFILE, Kind.MKDIR, Kind.MKNOD, Kind.MKFIFO, Kind.MKSOCK, Kind.SYMLINK})
_CERTAIN = frozenset(
    {Kind.WRITE, Kind.CLONE, Kind.UPDATE_EXTENT, Kind.CHMOD, Kind.CHOWN, Kind.SET_XATTR, Kind.REMOVE_XATTR}
)
_PERHAPS = frozenset({Kind.TRUNCATE, Kind.UTIMES})  # they come with whatever else happened to a file


@dataclass(frozen=True, slots=True)
class Names:
    """Paths relative to the subvolume, b"" for itself; in `removed`, and first in `renamed`, the old tree's, else the new one's.

    A directory's rename is told, not those of what is in it. Of a file with several names, each is told for itself.
    `changed` and `perhaps` are things that were there before (also renamed ones); the latter are known only to have been
    touched.
    """

    created: frozenset[bytes]
    removed: frozenset[bytes]
    renamed: frozenset[tuple[bytes, bytes]]
    changed: frozenset[bytes]
    perhaps: frozenset[bytes]


@dataclass(eq=False, slots=True)
class _Node:
    """`old` is its path in the old tree, None for what is new. A child that is None is known not to be there."""

    old: bytes | None
    names: int = 1
    children: dict[bytes, _Node | None] = field(default_factory=dict)
    changed: bool = False
    perhaps: bool = False


def names(commands: Iterable[Command]) -> Names:
    """What the stream comes to.

    Raises:
        SendStreamError: it speaks of what is not there.
    """
    root = _Node(b"")
    vacated: list[_Node] = []
    for command in commands:
        if command.kind not in _FRAMES:
            _replay(root, command, vacated)
    found: dict[_Node, list[tuple[bytes, bool]]] = {}
    for path, node, stayed in _standing(root, b""):
        found.setdefault(node, []).append((path, stayed))
    created, renamed = set(), set()
    for node, places in found.items():
        came = sorted(path for path, stayed in places if not stayed)
        if came and node.old is not None and not any(stayed for _path, stayed in places):
            renamed.add((node.old, came.pop(0)))
        created.update(came)
    known = [(path, node) for node, places in [(root, [(b"", True)]), *found.items()] for path, _ in places]
    return Names(
        created=frozenset(created),
        removed=frozenset(node.old for node in vacated if not node.names and node.old is not None),
        renamed=frozenset(renamed),
        changed=frozenset(path for path, node in known if node.changed) - created,
        perhaps=frozenset(path for path, node in known if node.perhaps and not node.changed) - created,
    )


def _replay(root: _Node, command: Command, vacated: list[_Node]) -> None:
    kind = command.kind
    if kind in _NEW:
        _attach(root, command.path, _Node(None))
    elif kind is Kind.RENAME:
        _attach(root, command.other, _detach(root, command.path, vacated), again=True)
    elif kind is Kind.LINK:
        node = _at(root, command.other)
        node.names += 1
        _attach(root, command.path, node)
    elif kind in (Kind.UNLINK, Kind.RMDIR):
        _detach(root, command.path, vacated)
    elif kind in _CERTAIN:
        _at(root, command.path).changed = True
    elif kind in _PERHAPS:
        _at(root, command.path).perhaps = True


def _at(root: _Node, path: bytes) -> _Node:
    node = root
    for name in path.split(b"/") if path else ():
        child = node.children.get(name)
        if child is None:
            if name in node.children or node.old is None:
                raise SendStreamError(f"the send stream speaks of {os.fsdecode(path)!r}, which is not there")
            child = node.children[name] = _Node(_join(node.old, name))
        node = child
    return node


def _attach(root: _Node, path: bytes, node: _Node, *, again: bool = False) -> None:
    parent, name = _at(root, os.path.dirname(path)), os.path.basename(path)
    if parent.children.get(name) is not None:
        raise SendStreamError(f"the send stream puts something over {os.fsdecode(path)!r}")
    parent.children[name] = node
    node.names += again


def _detach(root: _Node, path: bytes, vacated: list[_Node]) -> _Node:
    node = _at(root, path)
    parent, name = _at(root, os.path.dirname(path)), os.path.basename(path)
    parent.children[name] = None
    node.names -= 1
    if node.old is not None and parent.old is not None and node.old == _join(parent.old, name):
        vacated.append(node)
    return node


def _standing(node: _Node, path: bytes) -> Iterator[tuple[bytes, _Node, bool]]:
    """Everything that the stream touched below a node, and whether it stands where it did, seen from its directory."""
    for name, child in node.children.items():
        if child is not None:
            here = _join(path, name)
            yield here, child, node.old is not None and child.old == _join(node.old, name)
            yield from _standing(child, here)


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name
