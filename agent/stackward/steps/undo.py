"""Undo records: the way back is on disk before anything is stopped or moved.

A record is a JSON file in `<state>/undo/`. Its owner holds a lock (flock) on the file itself for as long as it lives, and the
lock goes with the process however that ends. So a record whose lock is free is *open*: nobody will take it back but
whoever finds it. Every step of a way back may be taken twice.
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

from stackward.core.errors import StackwardError
from stackward.core.model import display
from stackward.steps import crashpoints
from stackward.steps.volume import volume_move
from stackward.tools import btrfs, compose, filesystem, process, signals
from stackward.tools.docker import Docker, DockerUnavailableError, HookTimeout, NotFoundError
from stackward.tools.host import Bridge, BridgeError, BridgeUnavailableError


@dataclass(frozen=True, slots=True)
class Step:
    """One step back.

    `do` is "start", "unpause" or "stop" (`subject`: a container's ID), "exec" (`detail`: the command, run in the container
    `subject`), "rename" (`subject` back to `detail`; whatever stands at `detail` is moved to `detail` + ".stackward-undone"),
    "up" (the compose project in the directory `subject`, or only its service `detail`), "create" (the containers of that
    service, without starting them), "discard" (removes that project,
    then `subject` itself and the path `detail`, if any), "delete" (removes the path `subject`), "unit" (starts the host's
    unit `subject` through the bridge in the directory `detail`, if it answers), or "volume" (`detail`: a
    `volume_move.VolumeMove`, settled). `project` is what the one that is discarded is called.
    """

    do: str
    subject: str
    detail: str = ""
    timeout_seconds: float = 60.0
    project: str = ""


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
        messages = []
        for path in sorted(self._directory.glob("*.json"), reverse=True):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.exists():
                    messages += self._take_back_file(path)
            except BlockingIOError:
                continue
            finally:
                os.close(descriptor)
        return messages

    def open_count(self) -> int:
        """How many records have no living owner: something is stopped or moved, and nobody is putting it back."""
        found = 0
        for path in self._directory.glob("*.json"):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                found += path.exists()
            except BlockingIOError:
                continue
            finally:
                os.close(descriptor)
        return found

    def held_containers(self) -> frozenset[str]:
        """The IDs of containers that a run at work has stopped or paused, and will start again."""
        found: set[str] = set()
        for path in self._directory.glob("*.json"):
            with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
                steps = json.loads(path.read_text(encoding="ascii"))["steps"]
                found |= {str(step["subject"]) for step in steps if step["do"] in ("start", "unpause")}
        return frozenset(found)

    def _take_back_file(self, path: Path) -> list[str]:
        try:
            document = json.loads(path.read_text(encoding="ascii"))
            steps = [Step(**step) for step in document["steps"]]
            reason = str(document["reason"])
        except (ValueError, TypeError, KeyError) as error:
            return [f"undo record {path} cannot be read ({error}); look at it, put things right, and remove it"]
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
        document = {"reason": reason, "pid": os.getpid(), "steps": [asdict(step) for step in steps]}
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.write(descriptor, json.dumps(document, indent=1).encode("ascii"))
            os.fsync(descriptor)
            os.rename(temporary, path)
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
        acts = {**_WITHOUT_CONTAINER, "discard": self._discard}
        if step.do in acts:
            acts[step.do](step)
            return
        if self._docker is None:
            raise DockerUnavailableError("no Docker Engine answers")
        try:
            if step.do == "start":
                if stopping_since is not None:
                    self._docker.await_stop(step.subject, stopping_since)
                self._docker.start(step.subject)
            elif step.do == "stop":
                self._docker.stop(step.subject)
            elif step.do == "unpause":
                self._docker.unpause(step.subject)
            elif step.do == "volume":
                volume_move.settle(self._docker, step.detail)
            elif step.do == "exec":
                self._docker.exec(step.subject, ["sh", "-c", step.detail], timeout_seconds=step.timeout_seconds)
        except (NotFoundError, HookTimeout):
            return  # a container that is gone was replaced by somebody else; a hook gets its time, and once only

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        filesystem.sync_path(self._directory)


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


_WITHOUT_CONTAINER: dict[str, Callable[[Step], None]] = {
    "rename": lambda step: _rename_back(Path(step.subject), Path(step.detail)),
    "up": _up,
    "create": _create,
    "delete": lambda step: btrfs.delete_directory(Path(step.subject)),
    "unit": _unit,
}


def _rename_back(moved: Path, place: Path) -> None:
    if not os.path.lexists(moved):
        if not os.path.lexists(place):
            raise FileNotFoundError(
                errno.ENOENT, "neither is there: is its disk mounted?", str(moved), None, str(place)
            )
        return
    if os.path.lexists(place):
        undone = place.with_name(place.name + ".stackward-undone")
        filesystem.remove_tree(undone)
        os.rename(place, undone)
    os.rename(moved, place)
    filesystem.sync_path(place.parent)
