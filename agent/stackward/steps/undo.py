"""Undo records: the way back is on disk before anything is stopped or moved.

A record is a JSON file in `<state>/undo/`. Its owner holds a lock (flock) on the file itself for as long as it lives, and the
lock goes with the process however that ends. So a record whose lock is free is *open*: nobody will take it back but
whoever finds it. Every step of a way back may be taken twice.

A record that cannot be read, or that says what only a newer version knows, stays as it is: no step of it is taken.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
import uuid
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from stackward.core import records
from stackward.core.errors import RefusedError, StackwardError
from stackward.core.fields import Fields
from stackward.core.model import display
from stackward.core.records import NewerRecordError
from stackward.steps import crashpoints
from stackward.steps.restore import placing
from stackward.steps.volume import volume_move
from stackward.tools import beneath, btrfs, compose, filesystem, process, signals, small_files
from stackward.tools.docker import Docker, DockerUnavailableError, HookTimeout, NotFoundError
from stackward.tools.host import Bridge, BridgeError, BridgeUnavailableError


@dataclass(frozen=True, slots=True)
class Step:
    """One step back.

    `do` is "start", "unpause" or "stop" (`subject`: a container's ID), "exec" (`detail`: the command, run in the container
    `subject`), "rename" (`subject` back to `detail`; whatever stands at `detail` is moved aside, to `subject` + ".undone"),
    "copy-back" (the same by copying, where no rename leads from one to the other; `identity` is then what stood at `detail`),
    "up" (the compose project in the directory `subject`, or only its service `detail`), "create" (the containers of that
    service, without starting them), "discard" (removes that project,
    then `subject` itself and the path `detail`, if any), "delete" (removes the path `subject`), "unit" (starts the host's
    unit `subject` through the bridge in the directory `detail`, if it answers), or "volume" (`detail`: a
    `volume_move.VolumeMove`, settled). `project` is what the one that is discarded is called.

    `identity` (`beneath.identity`) is that of what is renamed or deleted: anything else is left where it is.
    """

    do: str
    subject: str
    detail: str = ""
    timeout_seconds: float = 60.0
    project: str = ""
    identity: str = ""


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """An open record that this version must not act on, and why. `owner` is "" where even that cannot be read."""

    path: Path
    why: str
    owner: str = ""


@dataclass(frozen=True, slots=True)
class _Record:
    reason: str
    steps: tuple[Step, ...]
    owner: str


_OF_CONTAINERS = ("start", "unpause", "stop", "exec", "volume")
# Which fields of a step are paths: absolute ones, or else nothing is done about the record.
_PATHS = {
    "rename": ("subject", "detail"),
    "delete": ("subject",),
    "discard": ("subject",),
    "up": ("subject",),
    "create": ("subject",),
    "unit": ("detail",),
}
_PAUSES_SECONDS = (1.0, 3.0)
_ASKED_SECONDS = 1.0  # what a killed Compose has asked for last: a start can be broken off when nobody waits for it


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
                if is_open and isinstance(record := _read(path), LeftAlone):
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
        record = _read(path)
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
        "rename": lambda _self, step, _since: _rename_back(Path(step.subject), Path(step.detail), step.identity),
        "copy-back": lambda _self, step, _since: _copy_back(Path(step.subject), Path(step.detail), step.identity),
        "up": lambda _self, step, _since: _up(step),
        "create": lambda _self, step, _since: _create(step),
        "discard": lambda self, step, _since: self._discard(step),
        "delete": lambda _self, step, _since: _delete(Path(step.subject), step.identity),
        "unit": lambda _self, step, _since: _unit(step),
        "volume": lambda self, step, _since: volume_move.settle(self._engine(), step.detail),
    }
    KNOWN: ClassVar[frozenset[str]] = frozenset(_ACTS)


def _read(path: Path) -> _Record | LeftAlone:
    """A record as this version understands all of it, or why it must be left alone."""
    document: dict[str, Any] = {}
    try:
        document = records.parse(small_files.read(path, records.LARGEST_BYTES, follow=False))
        return _understood(document)
    except NewerRecordError as error:
        reason = display(str(document.get("reason") or "it does not say what"))
        why = f"undo record {path} (“{reason}”): {error}; only that version can take it back"
    except (OSError, ValueError) as error:
        why = f"undo record {path} cannot be read ({error!s}); look at it, put things right, and remove it"
    return LeftAlone(path, why, _owner(document))


def _understood(document: dict[str, Any]) -> _Record:
    """Raises NewerRecordError, and ValueError for what is no record."""
    records.require_understood(document)
    found = Fields(document, "it")
    return _Record(found.text("reason"), tuple(map(_step, found.list("steps"))), _owner(document))


def _step(document: object) -> Step:
    found = Fields(records.known(Step, document), "a step of it")
    step = Step(
        do=found.text("do"),
        subject=found.text("subject"),
        detail=found.text("detail", ""),
        timeout_seconds=found.seconds("timeout_seconds", 60.0),
        project=found.text("project", ""),
    )
    if step.do not in Undo.KNOWN:
        raise NewerRecordError(f"a newer version made it (a step {step.do[:40]!r} is not known)")
    if step.do == "volume":
        volume_move.read(step.detail)
    for name in _PATHS.get(step.do, ()):
        path = getattr(step, name)
        if not path.startswith("/") or "\0" in path or ".." in path.split("/") or not path.strip("/"):
            raise ValueError(f"{display(path)} is no path of a step {step.do!r}")
    return step


def _owner(document: dict[str, Any]) -> str:
    """Who wrote it: one run, also where it wrote several. Before records said so there was only the process."""
    found = document.get("owner") or document.get("pid")
    return str(found) if isinstance(found, (str, int)) else ""


def _up(step: Step) -> None:
    """A project that does not start by then would not start at the next tick either: the job that minds it says so."""
    if os.path.isdir(step.subject):
        with suppress(process.CommandError, compose.ComposeError):
            _insist(lambda: compose.up(Path(step.subject), (step.detail,) if step.detail else ()))


def _create(step: Step) -> None:
    """Nobody minds a container that is not there: until it is, or its compose file has the service no more, this fails."""
    directory = Path(step.subject)
    if not directory.is_dir():
        return
    try:
        _insist(lambda: compose.create(directory, (step.detail,)))
    except process.CommandError:
        if compose.is_readable(directory) and step.detail not in (compose.resolve(directory).get("services") or {}):
            return
        raise


def _insist(act: Callable[[], None]) -> None:
    """Try it a few times: Docker may yet be at what a killed Compose has asked it for, and a name be taken meanwhile."""
    for pause_seconds in _PAUSES_SECONDS:
        try:
            return act()
        except process.CommandError:
            time.sleep(pause_seconds)
    return act()


def _unit(step: Step) -> None:
    with suppress(BridgeUnavailableError, BridgeError):
        Bridge(Path(step.detail)).start(step.subject)


def _rename_back(moved: Path, place: Path, identity: str) -> None:
    if identity and beneath.identity(place) == identity:
        return
    if beneath.status(moved) is None:
        if beneath.status(place) is None:
            raise FileNotFoundError(
                errno.ENOENT, "neither is there: is its disk mounted?", str(moved), None, str(place)
            )
        return
    if identity and beneath.identity(moved) != identity:
        raise RefusedError(f"{display(moved)} is not what was moved there", hint="look at what replaced it")
    if beneath.status(place) is not None:
        undone = moved.with_name(moved.name + ".undone")
        btrfs.delete_directory(undone)
        filesystem.rename_new(place, undone)
    filesystem.rename_new(moved, place)
    filesystem.sync_parents(place, moved)


def _copy_back(kept: Path, place: Path, original: str) -> None:
    if beneath.status(kept) is None:
        return
    if beneath.identity(place) != original:
        placing.bring(kept, place)
    btrfs.delete_directory(kept)
    filesystem.sync_parents(kept)


def _delete(path: Path, identity: str) -> None:
    if not identity or beneath.identity(path) == identity:
        btrfs.delete_directory(path)
