"""The content of undo records: a JSON file that one version of the appliance writes and another one may read.

A record that cannot be read, or that says what only a newer version knows, is left alone.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackward.core import records
from stackward.core.fields import Fields
from stackward.core.model import display
from stackward.core.records import NewerRecordError
from stackward.steps.volume import volume_move
from stackward.tools import small_files


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
class UndoRecord:
    """A way back as this version understands all of it."""

    reason: str
    steps: tuple[Step, ...]
    owner: str


# Which fields of a step are paths: absolute ones, or else nothing is done about the record.
_PATHS = {
    "rename": ("subject", "detail"),
    "copy-back": ("subject", "detail"),
    "delete": ("subject",),
    "discard": ("subject",),
    "up": ("subject",),
    "create": ("subject",),
    "unit": ("detail",),
}


def read(path: Path, kinds: Collection[str]) -> UndoRecord | LeftAlone:
    """The record, or why it must be left alone. `kinds` are the steps that this version can take."""
    document: dict[str, Any] = {}
    try:
        document = records.parse(small_files.read(path, records.LARGEST_BYTES, follow=False))
        return _understood(document, kinds)
    except NewerRecordError as error:
        reason = display(str(document.get("reason") or "it does not say what"))
        why = f"undo record {path} (“{reason}”): {error}; only that version can take it back"
    except (OSError, ValueError) as error:
        why = f"undo record {path} cannot be read ({error!s}); look at it, put things right, and remove it"
    return LeftAlone(path, why, _owner(document))


def _understood(document: dict[str, Any], kinds: Collection[str]) -> UndoRecord:
    """Raises NewerRecordError, and ValueError for what is no record."""
    records.require_understood(document)
    found = Fields(document, "it")
    return UndoRecord(found.text("reason"), tuple(_step(step, kinds) for step in found.list("steps")), _owner(document))


def _step(document: object, kinds: Collection[str]) -> Step:
    found = Fields(records.known(Step, document), "a step of it")
    step = Step(
        do=found.text("do"),
        subject=found.text("subject"),
        detail=found.text("detail", ""),
        timeout_seconds=found.seconds("timeout_seconds", 60.0),
        project=found.text("project", ""),
        identity=found.text("identity", ""),
    )
    if step.do not in kinds:
        raise NewerRecordError(f"a newer version made it (a step {step.do[:40]!r} is not known)")
    if step.do == "volume":
        volume_move.read(step.detail)
    for name in _PATHS.get(step.do, ()):
        path = getattr(step, name)
        if not path.startswith("/") or "\0" in path or ".." in path.split("/") or not path.strip("/"):
            raise ValueError(f"{display(path)} is no path of a step {step.do!r}")
    return step


def _owner(document: dict[str, Any]) -> str:
    """The run that wrote it, which may have written several; in older records, its process."""
    found = document.get("owner") or document.get("pid")
    return str(found) if isinstance(found, (str, int)) else ""
