"""Undo records: the way back is on disk before anything is stopped or moved.

A record is a JSON file in `<state>/undo/`. Its owner holds a lock (flock) on the file itself for as long as it lives, and the
lock goes with the process however that ends. So a record whose lock is free is *open*: nobody will take it back but
whoever finds it. Every step of a way back may be taken twice.

A record that cannot be read, or that says what only a newer version knows, stays as it is: no step of it is taken.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
import uuid
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar

from stackward.core import records
from stackward.core.errors import StackwardError
from stackward.core.model import display
from stackward.steps import crashpoints, undo_records, ways_back
from stackward.steps.undo_records import LeftAlone, Step
from stackward.steps.volume import volume_move
from stackward.tools import btrfs, compose, filesystem, process, signals, small_files
from stackward.tools.docker import Docker, DockerUnavailableError, HookTimeout, NotFoundError

_OF_CONTAINERS = ("start", "unpause", "stop", "exec", "volume")
_ASKED_SECONDS = 1.0  # what a killed Compose has asked for last: a start may be broken off when no process waits for it


__all__ = ["LeftAlone", "Step", "Undo", "WayBackError"]


class WayBackError(StackwardError):
    """A step back failed. Its record stays, and is tried again at the next start and before the next run."""


class Undo:
    """The records of one appliance. `docker` is None where no engine can be had: container steps then stay open."""

    def __init__(self, directory: Path, docker: Docker | None, crash_point: str = "") -> None:
        self._directory = directory
        self._docker = docker
        self._crash_point = crash_point
        self._owner = uuid.uuid4().hex

    @contextmanager
    def noted(self, reason: str, steps: Sequence[Step]) -> Iterator[None]:
        """While the body runs, the way back is on disk; the body takes it itself. Only a crash leaves the record open."""
        path, descriptor = self._write(reason, steps)
        try:
            yield
        finally:
            self._remove(path)
            os.close(descriptor)

    @contextmanager
    def promised(self, reason: str, steps: Sequence[Step], *, only_on_error: bool = False) -> Iterator[set[str]]:
        """While the body runs, the way back is on disk; it is taken on leaving, however the body ends.

        With `only_on_error` it is dropped, not taken, where the body ends well. The body adds to the set each container
        that it begins to stop; if it is cut short in the midst of that, the way back waits for the stop before it starts.

        Raises:
            WayBackError: a step back failed (the others were taken); the record stays open for the next who looks.
        """
        stopping: set[str] = set()
        if not steps:
            yield stopping
            return
        path, descriptor = self._write(reason, steps)
        try:
            try:
                yield stopping
            except BaseException:
                self._settle(path, steps, stopping)
                raise
            if only_on_error:
                self._remove(path)
            else:
                self._settle(path, steps, stopping)
        finally:
            os.close(descriptor)

    def take_back_open(self) -> list[str]:
        """Take back every record whose owner is gone, the newest first: data is back before its containers start.

        Returns what was done, or what still cannot be, in words.

        Safe to be killed at any point and to be run by several at once.
        """
        messages: list[str] = []
        left: set[str] = set()  # the owners of records that stay: what those did before is not taken back either
        for path in sorted(self._directory.glob("*.json"), reverse=True):
            with self._if_open(path, fcntl.LOCK_EX) as is_open:
                if is_open:
                    messages += self._take_back_file(path, left)
        return messages

    def open_count(self) -> int:
        """How many records have no living owner: something is stopped or moved, and nobody is putting it back."""
        found = 0
        for path in self._directory.glob("*.json"):
            with self._if_open(path, fcntl.LOCK_SH) as is_open:
                found += is_open
        return found

    def left_alone(self) -> list[LeftAlone]:
        """The open records that this version takes no step of, oldest first: a newer one made them, or they are unreadable."""
        found = []
        for path in sorted(self._directory.glob("*.json")):
            with self._if_open(path, fcntl.LOCK_SH) as is_open:
                if is_open and isinstance(record := undo_records.read(path, self.KNOWN), LeftAlone):
                    found.append(record)
        return found

    @staticmethod
    @contextmanager
    def _if_open(path: Path, lock: int) -> Iterator[bool]:
        """Whether the record is there and its owner is gone; its lock is held for the body."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            yield False
            return
        try:
            try:
                fcntl.flock(descriptor, lock | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield path.exists()
        finally:
            os.close(descriptor)

    def held_containers(self) -> frozenset[str]:
        """The IDs of containers that a run at work has stopped or paused, and will start again."""
        found: set[str] = set()
        for path in self._directory.glob("*.json"):
            with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
                steps = records.parse(small_files.read(path, records.LARGEST_BYTES, follow=False))["steps"]
                found |= {str(step["subject"]) for step in steps if step["do"] in ("start", "unpause")}
        return frozenset(found)

    def _take_back_file(self, path: Path, left: set[str]) -> list[str]:
        record = undo_records.read(path, self.KNOWN)
        if isinstance(record, LeftAlone):
            left.update({record.owner} - {""})
            return [f"{record.why}; no step of it was taken"]
        reason, steps = record.reason, record.steps
        if record.owner in left:
            return [f"“{reason}” is not taken back: what the same run did later has to be taken back first"]
        if any(step.do in ("create", "up") for step in steps):
            time.sleep(_ASKED_SECONDS)
        try:
            self._settle(path, steps, {step.subject for step in steps})
        except WayBackError as error:
            return [f"could not take back “{reason}” yet: {error.message}"]
        return [f"took back what a run left: {reason}"]

    def _write(self, reason: str, steps: Sequence[Step]) -> tuple[Path, int]:
        """Write a record that is locked from before it can be seen. Returns its path and the descriptor with the lock."""
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{time.time_ns():020d}-{uuid.uuid4().hex}.json"
        temporary = path.with_suffix(".tmp")
        document = {
            "format": records.FORMAT,
            records.REQUIRES: [],
            "reason": reason,
            "pid": os.getpid(),
            "owner": self._owner,
            "steps": [asdict(step) for step in steps],
        }
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.write(descriptor, json.dumps(document, indent=1).encode("ascii"))
            os.fsync(descriptor)
            filesystem.replace(temporary, path)
            filesystem.sync_path(self._directory)
        except BaseException:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
            raise
        return path, descriptor

    def _settle(self, path: Path, steps: Sequence[Step], stopping: Container[str]) -> None:
        """Take all steps, whatever signals come meanwhile. Of the containers in `stopping` a stop may be under way."""
        failures = []
        began = time.monotonic()
        with signals.deferred():
            for number, step in enumerate(steps):
                if number:
                    crashpoints.reach("undo-half", self._crash_point)
                try:
                    self._take(step, began if step.subject in stopping else None)
                except (StackwardError, OSError) as error:
                    failures.append(f"{step.do} {display(step.subject)}: {error}")
            if not failures:
                self._remove(path)
        if failures:
            hint = "it is tried again when the appliance starts and before its next run"
            raise WayBackError("; ".join(failures), hint=hint)

    def _discard(self, step: Step) -> None:
        """What it runs on goes only after it is down; where Compose cannot read its file, by what its parts are labelled."""
        directory = Path(step.subject)
        if (directory / "compose.yaml").is_file():
            try:
                compose.down(directory)
            except process.CommandError:
                if not step.project or self._docker is None or compose.is_readable(directory):
                    raise
                self._docker.remove_project(step.project, step.subject)
        for path in filter(None, (step.detail, step.subject)):
            btrfs.delete_directory(Path(path))

    def _take(self, step: Step, stopping_since: float | None) -> None:
        # A container that is gone was replaced by another; a hook gets its time, and once only.
        with suppress(*((NotFoundError, HookTimeout) if step.do in _OF_CONTAINERS else ())):
            self._ACTS[step.do](self, step, stopping_since)

    def _engine(self) -> Docker:
        if self._docker is None:
            raise DockerUnavailableError("no Docker Engine answers")
        return self._docker

    def _start(self, step: Step, stopping_since: float | None) -> None:
        docker = self._engine()
        if stopping_since is not None:
            docker.await_stop(step.subject, stopping_since)
        docker.start(step.subject)

    def _exec(self, step: Step, _stopping_since: float | None) -> None:
        self._engine().exec(step.subject, ["sh", "-c", step.detail], timeout_seconds=step.timeout_seconds)

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        filesystem.sync_path(self._directory)

    # What a step may be, and how it is taken. A record with any other one is not begun with.
    _ACTS: ClassVar[dict[str, Callable[[Undo, Step, float | None], None]]] = {
        "start": _start,
        "unpause": lambda self, step, _since: self._engine().unpause(step.subject),
        "stop": lambda self, step, _since: self._engine().stop(step.subject),
        "exec": _exec,
        "rename": lambda _self, step, _since: ways_back.rename_back(
            Path(step.subject), Path(step.detail), step.identity
        ),
        "copy-back": lambda _self, step, _since: ways_back.copy_back(
            Path(step.subject), Path(step.detail), step.identity
        ),
        "up": lambda _self, step, _since: ways_back.up(step),
        "create": lambda _self, step, _since: ways_back.create(step),
        "discard": lambda self, step, _since: self._discard(step),
        "delete": lambda _self, step, _since: ways_back.delete(Path(step.subject), step.identity),
        "unit": lambda _self, step, _since: ways_back.unit(step),
        "volume": lambda self, step, _since: volume_move.settle(self._engine(), step.detail),
    }
    KNOWN: ClassVar[frozenset[str]] = frozenset(_ACTS)
