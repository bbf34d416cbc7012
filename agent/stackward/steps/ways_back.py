"""Takes the steps of an undo record that need no engine: each may be taken twice, and follows no link."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from stackward.core.errors import RefusedError
from stackward.core.model import display
from stackward.steps.restore import placing
from stackward.steps.undo_records import Step
from stackward.tools import beneath, btrfs, compose, filesystem, process
from stackward.tools.host import Bridge, BridgeError, BridgeUnavailableError

_PAUSES_SECONDS = (1.0, 3.0)


def up(step: Step) -> None:
    """A project that does not start by then would not start at the next tick either: the job that minds it says so."""
    if os.path.isdir(step.subject):
        with suppress(process.CommandError, compose.ComposeError):
            _insist(lambda: compose.up(Path(step.subject), (step.detail,) if step.detail else ()))


def create(step: Step) -> None:
    """Create the container. No job watches for a missing one, so fail until it exists or its service is gone."""
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


def unit(step: Step) -> None:
    with suppress(BridgeUnavailableError, BridgeError):
        Bridge(Path(step.detail)).start(step.subject)


def rename_back(moved: Path, place: Path, identity: str) -> None:
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


def copy_back(kept: Path, place: Path, original: str) -> None:
    if beneath.status(kept) is None:
        return
    if beneath.identity(place) != original:
        placing.bring(kept, place)
    btrfs.delete_directory(kept)
    filesystem.sync_parents(kept)


def delete(path: Path, identity: str) -> None:
    if not identity or beneath.identity(path) == identity:
        btrfs.delete_directory(path)
