"""The records of what restores keep: JSON files that one version of the appliance writes and another one may read.

A record that cannot be read, or that only a newer version understands, stays, and so does all that it names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stackward.core import records as formats
from stackward.core.artifacts import require_name
from stackward.core.fields import Fields, is_plain_path
from stackward.core.model import display
from stackward.core.records import NewerRecordError
from stackward.steps.restore import home
from stackward.tools import beneath, filesystem, small_files
from stackward.tools.beneath import LinkOnTheWayError

UNDONE = ".stackward-undone"  # beside a place: where versions before 0.2 moved what stood in the way of an undo record


@dataclass(frozen=True, slots=True)
class Entry:
    """`place` is what was replaced, `kept` where it is now. Nothing stood there: `kept` is where undoing puts the new.

    `identity` (`beneath.identity`) tells what stood there from what replaced it; "" where nothing stood there. With `copied`,
    no rename leads from `place` to `kept`: what is kept is a copy, and the identity is its own.
    """

    place: str
    kept: str
    identity: str = ""
    copied: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """One restore. `subject` is a stack's name, or "" for the configuration; `done` once it was carried out whole.

    `directories` hold what is kept, and go when the record does: seven days after the restore, or after it was undone,
    since what lies there then is what had been in use until that moment.
    """

    run: str
    at: str
    subject: str
    what: str
    entries: tuple[Entry, ...]
    directories: tuple[str, ...]
    whole_stack: bool = False
    done: bool = False
    undone: bool = False
    undone_at: str = ""
    requires: tuple[str, ...] = (
        formats.FILE_HANDLES,
    )  # what a version must understand to undo it, or to let it expire


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """A record that this version must not act on, and why. `document` is what of it can be read."""

    path: Path
    why: str
    document: dict[str, Any]

    def may_be_undone(self, subject: str) -> bool:
        """Tell whether it is, as far as it can be read, a restore of `subject` that could be undone."""
        of_another = self.document.get("subject", subject) != subject
        return not of_another and self.document.get("done", True) is True and self.document.get("undone") is not True


def write(directory: Path, record: Record) -> None:
    """Durably; before anything is moved, and again (`done`) when all is in place."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    document = {"format": formats.FORMAT, **asdict(record)}
    filesystem.write_durably(directory / f"{record.run}.json", json.dumps(document, indent=1).encode("ascii"))


def records(directory: Path) -> Iterator[Record]:
    """Newest first. What cannot be read, or is of a newer version, is left out: nothing it names is touched."""
    return (found for found in every(directory) if isinstance(found, Record))


def left_alone(directory: Path) -> list[LeftAlone]:
    """The records that this version does not act on, newest first."""
    return [found for found in every(directory) if isinstance(found, LeftAlone)]


def every(directory: Path) -> Iterator[Record | LeftAlone]:
    try:
        names = sorted(os.listdir(directory), reverse=True)
    except FileNotFoundError:
        return
    for name in names:
        if name.endswith(".json"):
            yield _read(directory / name)


def _read(path: Path) -> Record | LeftAlone:
    document: dict[str, Any] = {}
    try:
        document = formats.parse(small_files.read(path, formats.LARGEST_BYTES, follow=False))
        return parse(document, path.name.removesuffix(".json"))
    except NewerRecordError as error:
        what = display(str(document.get("what") or "a restore"))
        return LeftAlone(path, f"{what}, kept in {display(path)}: {error}; only that version can undo it", document)
    except (OSError, ValueError) as error:
        why = f"the record {display(path)} of a restore cannot be read ({error}); look at it, and remove it"
        return LeftAlone(path, why, document)


def parse(document: dict[str, Any], of_run: str) -> Record:
    """The record of the run `of_run` that a document says.

    Every path is absolute and plain, and what is deleted some day is of the shape that we give it.

    Raises:
        NewerRecordError: only a newer version understands it.
        ValueError: it is no record of a restore, or none of ours.
    """
    formats.require_understood(document)
    found = Fields(formats.known(Record, document), "it")
    run = require_name(found.text("run"))
    if run != of_run:
        raise ValueError(f"it is of the run {run}")
    directories = found.texts("directories")
    for directory in directories:
        if not is_plain_path(directory) or not home.is_ours(Path(directory), run):
            raise ValueError(f"{display(directory)} is no directory that a restore keeps things in")
    entries = tuple(_entry(entry, directories) for entry in found.list("entries"))
    return Record(
        run=run,
        at=found.instant("at"),
        subject=found.text("subject"),
        what=found.text("what"),
        entries=entries,
        directories=directories,
        whole_stack=found.flag("whole_stack", default=False),
        done=found.flag("done", default=False),
        undone=found.flag("undone", default=False),
        undone_at=found.instant("undone_at", ""),
        requires=formats.requirements(document.get(formats.REQUIRES, ())),
    )


def _entry(document: object, directories: Sequence[str]) -> Entry:
    found = Fields(formats.known(Entry, document), "an entry of it")
    entry = Entry(
        found.path("place"), found.path("kept"), found.text("identity", ""), copied=found.flag("copied", default=False)
    )
    if not any(Path(directory) in Path(entry.kept).parents for directory in directories):
        raise ValueError(f"{display(entry.kept)} is in no directory of it")
    return entry


def places_of_ours(directory: Path) -> tuple[Path, ...]:
    """The directories that hold what is kept, and what undo records of versions before moved out of the way.

    Only these are ours in a tree; anything else that is called like them is the user's own.
    """
    found: dict[Path, None] = {}
    for record in every(directory):
        if isinstance(record, LeftAlone):
            held = record.document.get("directories")
            found |= dict.fromkeys(Path(one) for one in held if isinstance(one, str)) if isinstance(held, list) else {}
            continue
        found |= dict.fromkeys(map(Path, record.directories))
        found |= dict.fromkeys(Path(entry.place + UNDONE) for entry in record.entries)
    shared = {place.parent for place in found if place.parent.name == home.KEPT}
    return (*found, *(one for one in shared if _holds_only(one, found)))


def _holds_only(directory: Path, ours: Collection[Path]) -> bool:
    try:
        with beneath.opened(directory, beneath.DIRECTORY) as descriptor:
            return all(directory / name in ours for name in os.listdir(descriptor))
    except (OSError, LinkOnTheWayError):
        return False
