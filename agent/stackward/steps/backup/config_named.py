"""What stacks and settings say about paths under DOCKER_ROOT, as the walk of the config backup needs it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackward.core.model import display
from stackward.tools import filesystem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackward.config import Settings
    from stackward.core.model import Stack


@dataclass(frozen=True, slots=True)
class Named:
    """`root` and all keys are real, absolute paths; `stack_directories` are relative to it.

    `closed` directories are not entered, for the reason given. `trees` are the other trees of all stacks, with a reason for
    not having one in the tarball that needs nobody's attention here.
    """

    root: bytes
    stack_directories: frozenset[bytes]
    closed: dict[bytes, str]
    trees: dict[bytes, str]
    secrets: frozenset[bytes]
    mount_points: frozenset[bytes]
    in_git: bool

    def absolute(self, path: bytes) -> bytes:
        return os.path.join(self.root, path) if path else self.root

    def relative(self, full: bytes) -> bytes:
        """Relative to DOCKER_ROOT, or unchanged where it lies outside."""
        return full[len(self.root) + 1 :] if full.startswith(self.root + b"/") else full

    def tree_around(self, full: bytes) -> str:
        """What to say of a directory that is in some stack's tree; "" when it is in none."""
        return next((self.trees[path] for path in _upwards(full) if path in self.trees), "")

    def is_in_closed(self, full: bytes) -> bool:
        return any(path in self.closed for path in _upwards(full))


def named_by_stacks(settings: Settings, stacks: Sequence[Stack]) -> Named:
    root = os.path.realpath(os.fsencode(settings.docker_root))
    homes = frozenset(os.path.realpath(os.fsencode(stack.directory)) for stack in stacks)
    closed: dict[bytes, str] = {}
    trees: dict[bytes, str] = {}
    for stack in stacks:
        for tree in stack.trees:
            path = os.fsencode(tree.path)
            if stack.opted_in and tree.covered and not _holds_any(path, homes):
                closed[path] = "the data backup holds it"
            trees[path] = _verdict(stack, covered=tree.covered, reason=tree.reason)
        if stack.opted_in:
            for skipped in stack.policy.skip:
                path = os.path.realpath(os.path.join(os.fsencode(stack.directory), os.fsencode(skipped)))
                if path.startswith(os.path.realpath(os.fsencode(stack.directory)) + b"/"):
                    closed.setdefault(path, "needs no backup, says stackward.backup.skip")
    for own in (settings.backup_root, settings.state_dir):
        closed[os.path.realpath(os.fsencode(own))] = "Stackward's own"
    return Named(
        root=root,
        stack_directories=frozenset(os.fsencode(stack.directory.name) for stack in stacks),
        closed=closed,
        trees=trees,
        secrets=frozenset(os.path.realpath(os.fsencode(path)) for stack in stacks for path in stack.secret_files),
        mount_points=frozenset(os.fsencode(mount.point) for mount in filesystem.mounts()),
        in_git=os.path.exists(root + b"/.git"),
    )


def _verdict(stack: Stack, *, covered: bool, reason: str) -> str:
    name = display(stack.name)
    if not stack.opted_in:
        return f"a tree of {name}, which is not opted in"
    return "the data backup holds it" if covered else f"a tree of {name}, not covered: {reason}"


def _holds_any(path: bytes, homes: frozenset[bytes]) -> bool:
    """Whether a tree is, or contains, a stack's whole directory: its compose file belongs in the tarball all the same."""
    return any(home == path or home.startswith(path + b"/") for home in homes)


def _upwards(path: bytes) -> list[bytes]:
    found = [path]
    while len(path) > 1:
        path = os.path.dirname(path)
        found.append(path)
    return found
