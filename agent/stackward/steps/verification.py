"""Re-reads one backup and compares it with its checksums, and names every file that is not as it was.

Memory does not grow with the backup: a manifest is sorted by path bytes, a directory is walked in the same order, and
the two are merged as streams. What is read was dropped from the page cache first, so that the disk is asked.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from stackward.core.artifacts import MANIFEST, ArtifactKind
from stackward.core.errors import RefusedError
from stackward.core.model import Outcome, display
from stackward.core.progress import Progress
from stackward.steps import artifact_files
from stackward.steps.catalog import Artifact
from stackward.tools import manifest, process, small_files
from stackward.tools.tree_root import TreeRoot

NAMED = 10_000  # findings beyond this many are counted, not named
_THREADS = 2
_CHUNK = 1 << 20
_CHECKSUM_BYTES = 1 << 20
_BATCH_FILES = 128
_BATCH_BYTES = 64 << 20
_BATCHES_AHEAD = 4


class Fault(StrEnum):
    DAMAGED = "damaged"  # its content is not what the checksum says, or cannot be read
    MISSING = "missing"  # a line names it, and it is not there
    SURPLUS = "surplus"  # it is there, and no line names it


@dataclass(frozen=True, slots=True)
class Finding:
    """`path` is relative to the backup (its name for the backup itself); `why` says more where more is known."""

    fault: Fault
    path: str
    why: str = ""


@dataclass(slots=True)
class Report:
    """What was read of one artifact, and what was found. `warnings` are gaps in the proof, not damage."""

    artifact: str
    files: int = 0
    byte_count: int = 0
    faults: Counter[Fault] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    stacks: set[str] = field(default_factory=set)  # those with findings; "" where one is of none of them

    @property
    def damaged(self) -> int:
        return self.faults.total()

    @property
    def outcome(self) -> Outcome:
        if self.damaged:
            return Outcome.FAILED
        return Outcome.WARN if self.warnings else Outcome.OK

    @property
    def summary(self) -> str:
        """`2 damaged, 1 missing`, or the warnings, or `good`."""
        counted = ", ".join(f"{self.faults[fault]} {fault}" for fault in Fault if self.faults[fault])
        return counted or "; ".join(self.warnings) or "good"

    def add(self, fault: Fault, path: bytes | str, why: str = "", *, stacks: Iterable[str] = ()) -> None:
        self.stacks.update(stacks or ("",))
        self.faults[fault] += 1
        if len(self.findings) < NAMED:
            self.findings.append(Finding(fault, os.fsdecode(path), why))


def check(artifact: Artifact, progress: Progress, paths: Sequence[str] | None = None) -> Report:
    """Read all of a backup, or of a data backup only the files and directories `paths` (relative to it)."""
    if artifact.kind is ArtifactKind.DATA:
        return _check_data(artifact, progress, paths)
    return _check_file(artifact, progress)


def checksums(artifact: Artifact, path: bytes) -> Iterator[manifest.Line] | None:
    """The lines of a data backup for the file or directory at `path`, sorted, with paths relative to it (b"" for itself).

    None where the backup has no checksums. Lines that are none are passed over: what they stood for has no checksum then.
    """
    if not os.path.lexists(artifact.checksum_path):
        return None
    return _lines_below(artifact, path)


def _lines_below(artifact: Artifact, path: bytes) -> Iterator[manifest.Line]:
    with artifact_files.opened(artifact.path) as root:
        for digest, line in _lines(root, Report("")):
            if line == path or line.startswith(path + b"/"):
                yield digest, line[len(path) + 1 :]


def _check_file(artifact: Artifact, progress: Progress) -> Report:
    report = Report(artifact.name.name, files=1, byte_count=artifact.size_bytes or 0)
    progress.step(f"verifying {report.artifact}", total_bytes=artifact.size_bytes)
    expected = ""
    try:
        content = small_files.read(artifact_files.real(artifact.checksum_path), _CHECKSUM_BYTES, follow=False)
        expected = content.decode("ascii", "replace").lstrip("\\")[:64].lower()
    except FileNotFoundError:
        report.warnings.append(f"no {artifact.checksum_path.name}: its content cannot be compared")
    except OSError as error:
        report.add(Fault.DAMAGED, artifact.checksum_path.name, f"cannot be read: {error.strerror}")
    try:
        with _stoppable() as stop:
            found = _digest(artifact_files.open_file(artifact.path), stop, progress)
    except OSError as error:
        report.add(Fault.DAMAGED, report.artifact, f"cannot be read: {error.strerror}")
        return report
    if expected and found != expected:
        report.add(Fault.DAMAGED, report.artifact, f"its SHA-256 is {found}, not {display(expected)}")
    if artifact.kind is ArtifactKind.CONFIG:
        _list_archive(artifact, report)
    return report


def _list_archive(artifact: Artifact, report: Report) -> None:
    """List it all: tar reads to the end, and gzip compares its own CRC there."""
    try:
        with open(artifact_files.open_file(artifact.path), "rb") as file:
            argv = ["tar", "--list", "--gzip", "--quoting-style=escape", "--file=-"]
            process.run(argv, stdin=file, on_stdout=lambda _: None)
    except (process.CommandError, OSError) as error:
        said = error.stderr_tail if isinstance(error, process.CommandError) else str(error)
        report.add(Fault.DAMAGED, report.artifact, f"cannot be read to its end: {said.strip()}")


def _check_data(artifact: Artifact, progress: Progress, paths: Sequence[str] | None) -> Report:
    report = Report(artifact.name.name)
    progress.step(f"verifying {report.artifact}", total_bytes=artifact.size_bytes)
    if artifact.problem:
        report.warnings.append(artifact.problem)
    try:
        with artifact_files.opened(artifact.path) as root:
            _compare_all(artifact, root, report, progress, paths)
    except (OSError, RefusedError) as error:
        report.add(Fault.DAMAGED, report.artifact, f"cannot be read: {error}")
    return report


def _compare_all(
    artifact: Artifact, root: TreeRoot, report: Report, progress: Progress, paths: Sequence[str] | None
) -> None:
    if root.status(os.fsencode(MANIFEST)) is None:
        report.warnings.append("no checksums: it cannot be verified")
        return
    _look_for_trees(artifact, root, report, paths)
    owners = _owners(artifact)
    lines = _lines(root, report)
    only = None if paths is None else [os.fsencode(path) for path in paths]
    if only is not None:
        starts = tuple(path + b"/" for path in only)
        lines = (line for line in lines if (line[1] + b"/").startswith(starts))
    with _Hashing(root, report, progress, owners) as hashing:
        for path, digest, is_there in _merge(lines, artifact_files.walk(root, only)):
            if not is_there:
                hashing.fault(Fault.MISSING, path)
            elif digest is None:
                hashing.fault(Fault.SURPLUS, path)
            else:
                hashing.submit(path, digest)


def _look_for_trees(artifact: Artifact, root: TreeRoot, report: Report, paths: Sequence[str] | None) -> None:
    """A tree without a single file has no line that would miss it."""
    for entry in artifact.index.stacks.values() if artifact.index else ():
        for tree in entry.trees:
            if (paths is None or tree.path in paths) and not root.is_directory(os.fsencode(tree.path)):
                report.add(Fault.MISSING, tree.path, "the whole tree", stacks=(entry.stack,))


def _lines(root: TreeRoot, report: Report) -> Iterator[manifest.Line]:
    """The manifest's lines in the order of their paths. Lines that are none are damage, and the others still count.

    Only a foreign manifest (the seed's) can be out of order; it is sorted in memory.
    """
    previous = b""
    in_order = True
    for _, path in _parsed(root, report):
        in_order = in_order and previous <= path
        previous = path
    lines = _parsed(root, Report(""))
    return lines if in_order else iter(sorted(lines, key=lambda line: line[1]))


def _parsed(root: TreeRoot, report: Report) -> Iterator[manifest.Line]:
    inside = os.fsencode(root.path) + b"/"
    for number, line in enumerate(artifact_files.lines(root), 1):
        try:
            yield manifest.parse_line(line, inside)
        except ValueError as error:
            report.add(Fault.DAMAGED, MANIFEST, f"line {number}: {error}")


def _merge(lines: Iterator[manifest.Line], files: Iterator[bytes]) -> Iterator[tuple[bytes, str | None, bool]]:
    """Path, digest (None: no line names it) and whether it is there, for every path that either side has."""
    line, file = next(lines, None), next(files, None)
    while line is not None or file is not None:
        if file is None or (line is not None and line[1] < file):
            assert line is not None
            yield line[1], line[0], False
            line = next(lines, None)
        elif line is None or file < line[1]:
            yield file, None, True
            file = next(files, None)
        else:
            yield file, line[0], True
            line, file = next(lines, None), next(files, None)


def _owners(artifact: Artifact) -> dict[bytes, str]:
    return {os.fsencode(prefix) + b"/": stack for stack in artifact.stacks for prefix in artifact.prefixes(stack)}


class _Hashing:
    """Reads files in a few threads, a bounded number of them ahead, and adds what differs to the report."""

    def __init__(self, root: TreeRoot, report: Report, progress: Progress, owners: dict[bytes, str]) -> None:
        self._root = root
        self._report = report
        self._progress = progress
        self._owners = owners
        self._batch: list[tuple[bytes, str]] = []
        self._batch_bytes = 0
        self._running: deque[Future[list[Finding]]] = deque()
        self._pool = ThreadPoolExecutor(_THREADS)
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
                self._collect(0)
        finally:
            self._stop.set()  # whoever unwinds does not wait for a large file
            self._pool.shutdown(cancel_futures=True)

    def submit(self, path: bytes, digest: str) -> None:
        status = self._root.status(path)
        size = status.st_size if status is not None else 0  # gone meanwhile: that is found out where it is read
        self._report.files += 1
        self._report.byte_count += size
        self._batch.append((path, digest))
        self._batch_bytes += size
        if len(self._batch) >= _BATCH_FILES or self._batch_bytes >= _BATCH_BYTES:
            self._flush()

    def fault(self, fault: Fault, path: bytes, why: str = "") -> None:
        owners = [stack for start, stack in self._owners.items() if path.startswith(start)]
        self._report.add(fault, path, why, stacks=owners)

    def _flush(self) -> None:
        if self._batch:
            self._running.append(self._pool.submit(self._compare, self._batch))
            self._progress.advance(files=len(self._batch), byte_count=self._batch_bytes)
        self._batch, self._batch_bytes = [], 0
        self._collect(_BATCHES_AHEAD)

    def _collect(self, ahead: int) -> None:
        while len(self._running) > ahead:
            for finding in self._running.popleft().result():
                self.fault(finding.fault, os.fsencode(finding.path), finding.why)

    def _compare(self, batch: list[tuple[bytes, str]]) -> list[Finding]:
        found = []
        with self._root.again() as root:
            for path, expected in batch:
                try:
                    if _digest(root.open_file(path), self._stop) != expected:
                        found.append(Finding(Fault.DAMAGED, os.fsdecode(path)))
                except OSError as error:
                    found.append(Finding(Fault.DAMAGED, os.fsdecode(path), f"cannot be read: {error.strerror}"))
        return found


@contextmanager
def _stoppable() -> Iterator[threading.Event]:
    stop = threading.Event()
    try:
        yield stop
    finally:
        stop.set()


def _digest(descriptor: int, stop: threading.Event, progress: Progress | None = None) -> str:
    """The SHA-256 of what is on the disk of an open file, which is closed; gives up early (with a wrong one) at `stop`."""
    found = hashlib.sha256()
    with open(descriptor, "rb", buffering=0) as file:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        while not stop.is_set() and (chunk := file.read(_CHUNK)):
            found.update(chunk)
            if progress is not None:
                progress.advance(byte_count=len(chunk))
    return found.hexdigest()
