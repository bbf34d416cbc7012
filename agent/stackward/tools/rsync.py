"""rsync(1): copies a directory with everything that a restore needs: owners, modes, times, xattrs, ACLs, hard links, holes.

Exit code 24 (a file vanished while it was copied) is a warning; 23 (something was not copied) is a failure, since without it
nobody would know that e.g. a `trusted.*` attribute was left behind.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from stackward.core.errors import AttributeTooLargeError, DiskFullError
from stackward.core.model import display
from stackward.tools import filesystem, process, rsync_jail
from stackward.tools.tree_root import TreeRoot

# Without --modify-window=-1 rsync compares whole seconds, and misses a page rewritten within the second of the last copy.
# X twice: also the attributes that some other rsync's --fake-super keeps owners in.
_ARCHIVE = ("-aHAXXS", "--numeric-ids", "--modify-window=-1")
# To have a file compressed is Btrfs's property, which an attribute tells; no other file system takes it. A rule of one's own
# replaces rsync's, which leaves the system's attributes out (ACLs are copied apart). It is for both sides (s and r), else
# --delete-excluded makes it one for the sender alone, and the receiver removes the ACLs as attributes that are too many.
_NOT_ON_BTRFS = ("--filter=-xsr system.*", "--filter=-xsr btrfs.*")
_VANISHED = 24
_PARTIAL = 23
# Of a directory that has just become a second name of a file it asks for what only a directory has (seen in 3.5.0). What it
# did was right, and the next time it does not ask.
_STUMBLED = re.compile(r"get_acl: sys_acl_get_file\(.*, ACL_TYPE_DEFAULT\): Permission denied")
_OUT_OF_SPACE = re.compile(r"No space left on device|Disk quota exceeded")
_XATTR_TOO_LARGE = re.compile(r'[fl]setxattr\("(.*)","(.*)"\) failed: No space left on device')
_TEMPORARY = re.compile(r"/\.([^/]+)\.[^/.]{6}$")  # what a file is called while rsync makes it
_TOO_MANY_LINKS = re.compile(r"Too many links")
_PROGRESS = re.compile(rb"\s*([\d,]+)\s+\d+%\s+\S+\s+\S+(?:\s+\(xfr#(\d+), (?:ir|to)-chk=(\d+)/(\d+)\))?\s*")
_STATISTICS = {
    "files": re.compile(rb"Number of files: [\d,]+ \(.*?reg: ([\d,]+)"),
    "changed": re.compile(rb"Number of regular files transferred: ([\d,]+)"),
    "deleted": re.compile(rb"Number of deleted files: ([\d,]+)"),
    "bytes": re.compile(rb"Total file size: ([\d,]+)"),
    "bytes_changed": re.compile(rb"Total transferred file size: ([\d,]+)"),
}
_ITEM = re.compile(rb"(\S{11}|\*deleting  ) (.*)")
_ESCAPED = re.compile(rb"\\#([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Transfer:
    """What a copy looked at and moved, from rsync's own statistics."""

    files: int
    files_changed: int
    files_deleted: int
    bytes: int
    bytes_changed: int
    vanished: bool


@dataclass(frozen=True, slots=True)
class Item:
    """A line of an itemized dry run: rsync's flags ("*deleting", ">f.st......"), and the path relative to the target."""

    flags: str
    path: bytes

    @property
    def is_gone(self) -> bool:
        return self.flags == "*deleting"


class TooManyLinksError(process.CommandError):
    """A file has, or would get, more names than the target's file system can give one."""


def copy(
    source: Path | TreeRoot,
    target: Path,
    *,
    link_to: Path | None = None,
    filters: Sequence[str] = (),
    delete: bool = True,
    extra: Sequence[str] = (),
    stdin: bytes | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    known: tuple[int, int] = (0, 0),
    time_limit_seconds: float | None = None,
) -> Transfer:
    """Make `target` (created where missing) equal to `source`, both directories.

    From a `TreeRoot` it is the open directory that is read, and nothing outside of it while it is live.

    With `link_to`, a file that is the same there becomes a hard link to it; `target` must be empty then, since rsync would
    write changed attributes through existing links. `on_progress` gets bytes and files copied so far; with `known`, the files
    and bytes that the source is thought to have, about as many bytes as were looked at, since most need no copy then.

    Raises:
        DiskFullError, TooManyLinksError, CommandError: the target is not equal to the source.
    """
    argv = [*_base(target, link_to, filters, delete=delete), *extra, "--stats", "--info=progress2"]
    output = bytearray()
    files = so_far = 0

    def take(chunk: bytes) -> None:
        nonlocal files, so_far
        output.extend(chunk)
        if on_progress is not None and (match := _latest_progress(chunk)):
            files = _number(match[2]) if match[2] else files
            so_far = max(so_far, _number(match[1]), _looked_at(match, *known))
            on_progress(so_far, files)
        del output[: max(0, len(output) - 65536)]

    done = _run(argv, source, target, stdin=stdin, on_stdout=take, time_limit_seconds=time_limit_seconds)
    found = {name: _statistic(pattern, output) for name, pattern in _STATISTICS.items()}
    return Transfer(
        files=found["files"],
        files_changed=found["changed"],
        files_deleted=found["deleted"],
        bytes=found["bytes"],
        bytes_changed=found["bytes_changed"],
        vanished=done.returncode == _VANISHED,
    )


def copy_named(
    source: Path | TreeRoot,
    target: Path,
    paths: Collection[bytes],
    *options: str,
    time_limit_seconds: float | None = None,
) -> int:
    """Copy what is at these paths (relative to both), directories without what is in them. Returns how many bytes it wrote.

    Raises:
        DiskFullError, CommandError: not all of it is copied.
    """
    if not paths:
        return 0
    names = b"".join(b"./" + path + b"\0" for path in sorted(paths))
    extra = ("--files-from=-", "--from0", *options)
    done = copy(source, target, delete=False, extra=extra, stdin=names, time_limit_seconds=time_limit_seconds)
    return done.bytes_changed


def _latest_progress(chunk: bytes) -> re.Match[bytes] | None:
    """The last line such as `  32,768   0%  1.50MB/s  0:00:09 (xfr#3, to-chk=9/12)`; carriage returns end them, too."""
    matches = (_PROGRESS.fullmatch(line) for line in reversed(re.split(rb"[\r\n]", chunk)))
    return next(filter(None, matches), None)


def _looked_at(progress: re.Match[bytes], files: int, size_bytes: int) -> int:
    """About how many of the source's bytes: rsync says how many names it has left of those that it has found so far."""
    if not files or not progress[4]:
        return 0
    left, found = _number(progress[3]), _number(progress[4])
    return size_bytes * (found - left) // max(found, files)


def differences(
    source: Path | TreeRoot,
    target: Path,
    *,
    filters: Sequence[str] = (),
    delete: bool = True,
    extra: Sequence[str] = (),
    time_limit_seconds: float | None = None,
) -> tuple[Item, ...]:
    """What `copy` would do, item by item, without doing it."""
    argv = [*_base(target, None, filters, delete=delete), *extra, "--dry-run", "--out-format=%i %n"]
    chunks: list[bytes] = []
    _run(argv, source, target, stdin=None, on_stdout=chunks.append, time_limit_seconds=time_limit_seconds)
    items = []
    for line in b"".join(chunks).splitlines():
        if match := _ITEM.fullmatch(line):
            path = _ESCAPED.sub(lambda octal: bytes([int(octal[1], 8)]), match[2])
            items.append(Item(match[1].decode("ascii").strip(), path.rstrip(b"/")))
    return tuple(items)


def _base(target: Path, link_to: Path | None, filters: Sequence[str], *, delete: bool) -> list[process.Argument]:
    argv: list[process.Argument] = ["rsync", *_ARCHIVE]
    if not filesystem.is_on_btrfs(target):
        argv += _NOT_ON_BTRFS
    if delete:
        argv += ["--delete", "--delete-excluded"]
    if link_to is not None:
        argv.append(b"--link-dest=" + os.fsencode(os.path.abspath(link_to)))
    argv += [f"--filter={rule}" for rule in filters]
    return argv


def _run(
    argv: list[process.Argument],
    source: Path | TreeRoot,
    target: Path,
    *,
    stdin: bytes | None,
    on_stdout: Callable[[bytes], None],
    time_limit_seconds: float | None,
) -> process.Completed:
    began = time.monotonic()

    def once(limit: float | None) -> process.Completed:
        return _once(argv, source, target, stdin=stdin, on_stdout=on_stdout, limit=limit)

    try:
        try:
            return once(time_limit_seconds)
        except process.CommandError as error:
            if error.returncode != _PARTIAL or not _STUMBLED.search(error.stderr_tail):
                raise
            return once(time_limit_seconds and max(0.0, time_limit_seconds - (time.monotonic() - began)))
    except process.CommandError as error:
        if (found := _XATTR_TOO_LARGE.search(error.stderr_tail)) and filesystem.has_room(target):
            raise AttributeTooLargeError.of(found[2], _TEMPORARY.sub(r"/\1", found[1])) from error
        if _OUT_OF_SPACE.search(error.stderr_tail):
            raise DiskFullError.at(display(target)) from error
        if _TOO_MANY_LINKS.search(error.stderr_tail):
            raise TooManyLinksError(argv, error.returncode, error.stderr_tail) from error
        raise


def _once(
    argv: list[process.Argument],
    source: Path | TreeRoot,
    target: Path,
    *,
    stdin: bytes | None,
    on_stdout: Callable[[bytes], None],
    limit: float | None,
) -> process.Completed:
    def run(whole: list[process.Argument], cwd: Path | None) -> process.Completed:
        return process.run(
            whole, stdin=stdin, cwd=cwd, ok=(0, _VANISHED), on_stdout=on_stdout, time_limit_seconds=limit
        )

    to = os.fsencode(os.path.abspath(target)) + b"/"
    if not isinstance(source, TreeRoot):
        return run([*argv, "--", os.fsencode(source) + b"/", to], None)
    here = Path(
        f"/proc/self/fd/{source.descriptor}"
    )  # in the child: it changes there before its descriptors are closed
    if not source.live:
        return run([*argv, "--", "./", to], here)
    with rsync_jail.options() as jail:
        try:
            return run([*argv, *jail, "--", rsync_jail.MODULE, to], here)
        except process.CommandError as error:
            plain = [*argv, "--", os.fsencode(source.path) + b"/", to]
            raise rsync_jail.explained(error, plain, source) from error


def _statistic(pattern: re.Pattern[bytes], output: bytearray) -> int:
    match = pattern.search(output)
    return _number(match[1]) if match else 0


def _number(text: bytes) -> int:
    return int(text.replace(b",", b""))
