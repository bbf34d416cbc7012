"""What goes into the config tarball, what into the secrets capsule, and what is left out and why.

The walk is over DOCKER_ROOT; symlinks are taken as such. Paths are bytes relative to DOCKER_ROOT. Directories come before
what is in them, entries in the order of their bytes, so that two walks over the same files give the same list.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from stackward.core import gitignore
from stackward.core.model import Outcome
from stackward.core.secret_names import (
    HEAD_BYTES,
    has_private_key,
    is_secret_directory,
    is_secret_name,
    may_be_key,
)
from stackward.core.units import format_bytes
from stackward.steps.backup import sources
from stackward.steps.backup.config_named import Named, named_by_stacks
from stackward.steps.restore import kept
from stackward.tools import beneath, tree_root
from stackward.tools.tree_root import TreeRoot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stackward.config import Settings
    from stackward.core.model import Stack

# Directories that are rebuilt or rotated, never configured; a stack may nevertheless be called so.
REBUILT = frozenset({b"logs", b"cache", b".cache", b"__pycache__"})
SNAPSHOTS = frozenset({b".snapshots"})  # as snapper has them
_IGNORE_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class LeftOut:
    """`outcome` is WARN where a person should decide, FAILED where something could not be read."""

    path: bytes
    reason: str
    outcome: Outcome = Outcome.OK


@dataclass(frozen=True, slots=True)
class Selection:
    """`secrets` are relative like `members`, absolute where they lie outside DOCKER_ROOT."""

    members: tuple[bytes, ...]
    secrets: tuple[bytes, ...]
    left_out: tuple[LeftOut, ...]
    files_left_out: int  # single ignored files, which are not listed one by one
    total_bytes: int

    @property
    def capsule_members(self) -> tuple[bytes, ...]:
        """The secrets with the directories above them, whose mode matters (`secrets/` is 0700)."""
        above = {parent for path in self.secrets if not path.startswith(b"/") for parent in _parents(path)}
        return tuple(sorted(above.union(self.secrets)))


def select(settings: Settings, stacks: Sequence[Stack]) -> Selection:
    """Look at DOCKER_ROOT as it is now. Raises OSError when DOCKER_ROOT itself cannot be read."""
    named = named_by_stacks(settings, stacks)
    ours = [settings.volume / name for name in (sources.OURS, sources.NIGHTLY)]
    ours += kept.places_of_ours(settings.state_dir / "kept")
    with tree_root.opened(Path(os.fsdecode(named.root))) as root:
        walk = _Walk(named, root, settings.config_size_limit, frozenset(map(os.fsencode, ours)))
        walk.run()
        return walk.selection()


@dataclass(slots=True)
class _Frame:
    """A directory that is being walked. `mark` and `secret_mark` say what to forget if it turns out too large."""

    path: bytes  # "" for DOCKER_ROOT
    entries: Iterator[tuple[bytes, os.stat_result | OSError]]
    device: int
    removable: bool
    rules: tuple[tuple[bytes, tuple[gitignore.Rule, ...]], ...]  # (directory, its rules), the deepest last
    own_repository: bool
    secret: bool
    mark: int
    secret_mark: int
    bytes: int = 0


@dataclass(slots=True)
class _Walk:
    named: Named
    root: TreeRoot
    size_limit: int
    ours: frozenset[bytes]
    members: list[bytes] = field(default_factory=list)
    secrets: list[bytes] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    linked: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    files_left_out: int = 0
    total_bytes: int = 0

    def run(self) -> None:
        frames = [self._frame(b"", None)]
        while frames:
            frame = frames[-1]
            entry = next(frame.entries, None)
            if entry is None:
                frames.pop()
                self._add_size(frames, frame.bytes)
                continue
            name, found = entry
            path = frame.path + b"/" + name if frame.path else name
            try:
                if isinstance(found, OSError):
                    raise found
                if stat.S_ISDIR(found.st_mode):
                    below = self._directory(frame, path, found)
                    if below is not None:
                        frames.append(below)
                else:
                    self._add_size(frames, self._file(frame, path, found))
            except (FileNotFoundError, beneath.LinkOnTheWayError):
                continue  # gone since it was listed, or its directory is
            except OSError as error:
                self._leave_out(path, f"cannot be read: {error.strerror}", Outcome.FAILED)

    def selection(self) -> Selection:
        self._move_links_of_secrets()
        self._add_named_secrets()
        secrets = sorted(set(self.secrets))
        taken = set(secrets)
        members = tuple(path for path in self.members if path not in taken)
        return Selection(members, tuple(secrets), tuple(self.left_out), self.files_left_out, self.total_bytes)

    def _frame(self, path: bytes, above: _Frame | None) -> _Frame:
        with beneath.opened(path, beneath.DIRECTORY, below=self.root.descriptor) as directory:
            device = os.fstat(directory).st_dev
            entries = sorted((os.fsencode(name), _status(name, directory)) for name in os.listdir(directory))
        names = {name for name, _ in entries}
        own_repository = above is not None and (above.own_repository or b".git" in names)
        rules = above.rules if above is not None else ()
        if b".gitignore" in names and not own_repository and (above is None or rules or self.named.in_git):
            rules = (*rules, (path, self._read_rules(path)))
        return _Frame(
            path=path,
            entries=iter(entries),
            device=device,
            removable=above is not None and path not in self.named.stack_directories,
            rules=rules,
            own_repository=own_repository,
            secret=above is not None and (above.secret or is_secret_directory(os.path.basename(path))),
            mark=len(self.members),
            secret_mark=len(self.secrets),
        )

    def _read_rules(self, path: bytes) -> tuple[gitignore.Rule, ...]:
        """As git, which follows no symlink here."""
        try:
            with open(self.root.open_file(path + b"/.gitignore" if path else b".gitignore"), "rb") as opened:
                return gitignore.parse(opened.read(_IGNORE_FILE_BYTES))
        except OSError:
            return ()

    def _directory(self, frame: _Frame, path: bytes, found: os.stat_result) -> _Frame | None:
        """The frame to walk next, or None where nothing below `path` is wanted."""
        name = os.path.basename(path)
        full = self.named.absolute(path)
        is_stack = path in self.named.stack_directories
        if (reason := self.named.closed.get(full)) is not None:
            self.members.append(path)  # as an empty directory: its owner and mode
            self._leave_out(path, reason)
        elif name in SNAPSHOTS or full in self.ours:
            self._leave_out(path, "a snapshot, or kept for the undoing of a restore")
        elif name == b".git":
            self._leave_out(path, "a repository's history")
        elif name == b"data" and path.count(b"/") == 1:
            self.members.append(path)
            self._leave_out(path, "only data backups hold data directories")
        elif name in REBUILT and not is_stack:
            self._leave_out(path, "logs and caches are not configuration")
        elif _ignored(frame, path, is_directory=True):
            outcome = Outcome.WARN if is_stack else Outcome.OK
            self._leave_out(path, "ignored by .gitignore", outcome)
        elif not is_stack and self._is_elsewhere(frame, full, found):
            self._leave_out(path, *self._unless_named(full, "another file system or subvolume"))
        else:
            below = self._frame(path, frame)
            self.members.append(path)
            return below
        return None

    def _file(self, frame: _Frame, path: bytes, found: os.stat_result) -> int:
        """Take or leave one thing that is no directory. Returns the bytes it adds to the tarball."""
        name = os.path.basename(path)
        full = self.named.absolute(path)
        if stat.S_ISSOCK(found.st_mode) or name == b".git" or full in self.ours:
            return 0
        if full in self.named.secrets or frame.secret or is_secret_name(name) or self._holds_key(path, name, found):
            self.secrets.append(path)
            return 0
        if _ignored(frame, path, is_directory=False):
            self.files_left_out += 1
            return 0
        size = min(found.st_size, found.st_blocks * 512)
        if size > self.size_limit:
            self._leave_out(path, *self._unless_named(full, f"a file of {format_bytes(size)} that nothing names"))
            return 0
        if found.st_nlink > 1 and stat.S_ISREG(found.st_mode):
            self.linked[path] = (found.st_dev, found.st_ino)
        if path in self.named.stack_directories:
            self._leave_out(path, "a symlink: what it points to is not in the config backup", Outcome.WARN)
        self.members.append(path)
        return size

    def _holds_key(self, path: bytes, name: bytes, found: os.stat_result) -> bool:
        if not stat.S_ISREG(found.st_mode) or not may_be_key(name):
            return False
        with open(self.root.open_file(path), "rb") as file:
            return has_private_key(file.read(HEAD_BYTES))

    def _add_size(self, frames: list[_Frame], size: int) -> None:
        """Count, and drop the innermost directory once it is too large for one that nobody named."""
        if not frames:
            self.total_bytes = size
            return
        frame = frames[-1]
        frame.bytes += size
        if frame.removable and frame.bytes > self.size_limit:
            frames.pop()
            del self.members[frame.mark :]
            del self.secrets[frame.secret_mark :]
            self.left_out = [one for one in self.left_out if not one.path.startswith(frame.path + b"/")]
            why = f"over {format_bytes(self.size_limit)}, and nothing names it"
            self._leave_out(frame.path, *self._unless_named(self.named.absolute(frame.path), why))

    def _is_elsewhere(self, frame: _Frame, full: bytes, found: os.stat_result) -> bool:
        return found.st_dev != frame.device or full in self.named.mount_points

    def _unless_named(self, full: bytes, reason: str) -> tuple[str, Outcome]:
        """A tree of some stack has its verdict in `stackward stacks`; anything else is for a person to decide."""
        tree = self.named.tree_around(full)
        return (tree, Outcome.OK) if tree else (reason, Outcome.WARN)

    def _leave_out(self, path: bytes, reason: str, outcome: Outcome = Outcome.OK) -> None:
        self.left_out.append(LeftOut(path, reason, outcome))

    def _move_links_of_secrets(self) -> None:
        """Another name of a secret file holds the same secret."""
        inodes = set()
        for path in self.secrets:
            found = self.root.status(path)
            if found is not None and found.st_nlink > 1:
                inodes.add((found.st_dev, found.st_ino))
        self.secrets += [path for path, inode in self.linked.items() if inode in inodes]

    def _add_named_secrets(self) -> None:
        """Those that the walk didn't come by: below an ignored directory, say, or outside DOCKER_ROOT."""
        for full in sorted(self.named.secrets):
            path = self.named.relative(full)
            if self.named.is_in_closed(full) or path in self.secrets:
                continue
            found = _outside(full)
            if found is not None and not stat.S_ISDIR(found.st_mode):
                self.secrets.append(path)
            elif found is None and path == full:
                why = "a stack names it as a secret, and it is not visible here (not mounted into the appliance?)"
                self._leave_out(path, why, Outcome.WARN)


def _parents(path: bytes) -> Iterator[bytes]:
    at = path.find(b"/")
    while at >= 0:
        yield path[:at]
        at = path.find(b"/", at + 1)


def _ignored(frame: _Frame, path: bytes, *, is_directory: bool) -> bool:
    for directory, rules in reversed(frame.rules):
        inside = path[len(directory) + 1 :] if directory else path
        verdict = gitignore.decide(rules, inside, is_directory=is_directory)
        if verdict is not None:
            return verdict
    return False


def _status(name: str, directory: int) -> os.stat_result | OSError:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        return error


def _outside(path: bytes) -> os.stat_result | None:
    try:
        return beneath.status(path)
    except (OSError, beneath.LinkOnTheWayError):
        return None
