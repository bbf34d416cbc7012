"""What a restore replaced stays for seven days, so that `--undo` can put it back.

It is kept in a directory of the run (`home`), outside of what containers can write to wherever the file system allows. A
record in `<state>/kept/<run>.json` says where everything stood. Putting back may be done twice: what is back already is left
alone. Nothing is reached through a symbolic link: a container may have put one into its own tree since.

A record that cannot be read, or that only a newer version understands, stays, and so does all that it names.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from stackward.core import records as formats
from stackward.core.artifacts import require_name
from stackward.core.errors import RefusedError, StackwardError
from stackward.core.fields import Fields, is_plain_path
from stackward.core.model import display
from stackward.core.records import NewerRecordError
from stackward.steps import verified_copy
from stackward.steps.restore import home, placing
from stackward.tools import beneath, btrfs, filesystem, small_files
from stackward.tools.beneath import LinkOnTheWayError
from stackward.tools.process import CommandError

KEPT_FOR = timedelta(days=7)
FORGOTTEN_AFTER = timedelta(days=60)
_UNDONE = ".stackward-undone"  # beside a place: where versions before 0.2 moved what stood in the way of an undo record
_DEVICE_AND_INODE = re.compile(r"\d+:\d+")  # an identity as versions before 0.2 wrote it


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
        """Whether it is, for all that is known, a restore of `subject` that somebody may want to undo."""
        of_another = self.document.get("subject", subject) != subject
        return not of_another and self.document.get("done", True) is True and self.document.get("undone") is not True


@dataclass(frozen=True, slots=True)
class Expired:
    """Which restores nothing is kept of any more, and of which it is still there although its time is over, and why."""

    gone: tuple[str, ...]
    stuck: tuple[str, ...]


def entry_for(place: Path, kept: Path) -> Entry:
    """The entry for what stands at `place` now."""
    return Entry(str(place), str(kept), beneath.identity(place))


def write(directory: Path, record: Record) -> None:
    """Durably; before anything is moved, and again (`done`) when all is in place."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    document = {"format": formats.FORMAT, **asdict(record)}
    filesystem.write_durably(directory / f"{record.run}.json", json.dumps(document, indent=1).encode("ascii"))


def records(directory: Path) -> Iterator[Record]:
    """Newest first. What cannot be read, or is of a newer version, is left out: nothing it names is touched."""
    return (found for found in _all(directory) if isinstance(found, Record))


def left_alone(directory: Path) -> list[LeftAlone]:
    """The records that this version does not act on, newest first."""
    return [found for found in _all(directory) if isinstance(found, LeftAlone)]


def _all(directory: Path) -> Iterator[Record | LeftAlone]:
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
    for record in _all(directory):
        if isinstance(record, LeftAlone):
            held = record.document.get("directories")
            found |= dict.fromkeys(Path(one) for one in held if isinstance(one, str)) if isinstance(held, list) else {}
            continue
        found |= dict.fromkeys(map(Path, record.directories))
        found |= dict.fromkeys(Path(entry.place + _UNDONE) for entry in record.entries)
    shared = {place.parent for place in found if place.parent.name == home.KEPT}
    return (*found, *(one for one in shared if _holds_only(one, found)))


def _holds_only(directory: Path, ours: Collection[Path]) -> bool:
    try:
        with beneath.opened(directory, beneath.DIRECTORY) as descriptor:
            return all(directory / name in ours for name in os.listdir(descriptor))
    except (OSError, LinkOnTheWayError):
        return False


def latest(directory: Path, subject: str) -> Record:
    """The newest restore of `subject` that can be undone.

    Raises:
        RefusedError: the newest one is of a newer version, or its record cannot be read.
        StackwardError: there is none.
    """
    for record in _all(directory):
        if isinstance(record, LeftAlone):
            if record.may_be_undone(subject):
                raise RefusedError(
                    f"the last restore of {display(subject) or 'the configuration'} cannot be undone by this version:"
                    f" {record.why}",
                    hint="update the appliance, and try again; an older restore is not undone in its stead",
                )
            continue
        if record.subject == subject and record.done and not record.undone and not _was_taken_back(record):
            return record
    raise StackwardError(
        f"there is no restore of {display(subject) or 'the configuration'} to undo",
        hint="what a restore replaced is kept for seven days",
    )


def told(record: Record) -> dict[str, str]:
    """Which restore it is of, as results name it."""
    return {"undone": record.what, "run": record.run, "at": record.at}


def foretold(record: Record) -> dict[str, list[str]]:
    """What undoing would put back, and what it would take away since nothing stood there before; in words."""
    lost = _lost(record)
    return {
        "places": [display(e.place) for e in record.entries if e.identity and e not in lost and not _is_back(e)],
        "taken_away": [display(e.place) for e in record.entries if not e.identity and _is_there(e.place)],
        "lost": [display(entry.kept) for entry in lost],
    }


def put_back(directory: Path, record: Record, now: datetime) -> dict[str, list[str]]:
    """Undo a restore; what it had put there is kept in its stead. Returns what came back and what went, as `foretold`.

    Raises:
        StackwardError: something that was kept is no longer there. Nothing was changed.
        LinkOnTheWayError: a link stands where a directory was. Nothing was changed.
    """
    require(record)
    changed = [entry for entry in record.entries if _put_back(entry)]
    write(directory, replace(record, undone=True, undone_at=now.isoformat()))
    return {
        "places": [display(entry.place) for entry in changed if entry.identity],
        "taken_away": [display(entry.place) for entry in changed if not entry.identity],
    }


def require(record: Record) -> None:
    """Raises StackwardError where what was kept, or a directory on the way to where it was, is no longer there."""
    for entry in record.entries:
        beneath.status(entry.place)  # a link on the way is refused before anything is changed
    if lost := _lost(record):
        named = ", ".join(display(entry.kept) for entry in lost[:5])
        raise StackwardError(f"what was kept is gone: {named}", hint="restore from a backup instead")


def discard_unfinished(directory: Path, subject: str) -> None:
    """Remove what a killed restore of `subject` left. Its undo record was taken back before; doubt keeps.

    The caller holds the lock of `subject`.
    """
    for record in records(directory):
        if record.subject != subject:
            continue
        try:
            unfinished = not record.done or _was_taken_back(record)
            if unfinished and not _holds_something(record):
                _delete(directory, record)
        except LinkOnTheWayError:
            continue  # `expire` tells of it when its time comes


def expire(directory: Path, now: datetime) -> Expired:
    """Delete what has been kept for seven days. What cannot be deleted is tried again the next time."""
    gone, stuck = [], []
    for record in records(directory):
        age = now - datetime.fromisoformat(record.undone_at or record.at)
        if not record.done or age < KEPT_FOR:
            continue
        try:
            # A directory that is not there may be on a volume that is not mounted just now.
            seen = all(_is_there(kept) for kept in record.directories)
            if seen or age >= FORGOTTEN_AFTER:
                _delete(directory, record)
                gone.append(f"{record.what} ({record.at})")
        except (OSError, CommandError, LinkOnTheWayError) as error:
            why = getattr(error, "message", error)
            stuck.append(f"what was kept for the undoing of {record.what} ({record.at}) cannot be deleted: {why}")
    return Expired(tuple(gone), tuple(stuck))


def _put_back(entry: Entry) -> bool:
    place, kept = Path(entry.place), Path(entry.kept)
    if entry.copied:
        return _put_back_copy(entry, place, kept)
    if entry.identity:
        if _is_back(entry):
            return False
        if beneath.status(place) is None:
            filesystem.rename_new(kept, place)
        else:
            placing.swap(kept, place)
    else:
        if not _is_there(entry.place) or _is_there(entry.kept):
            return False
        beneath.make_directories(kept.parent)
        filesystem.rename_new(place, kept)
    filesystem.sync_parents(place, kept)
    return True


def _put_back_copy(entry: Entry, place: Path, kept: Path) -> bool:
    """What is in use now is copied out first; the second time that copy is there, and stays."""
    in_use = kept.with_name(kept.name + ".in-use")
    if beneath.status(place) is None:
        if not entry.identity:
            return False
    elif beneath.status(in_use) is None:
        beneath.make_directories(kept.parent)
        partial = kept.with_name(kept.name + ".partial")
        btrfs.delete_directory(partial)
        verified_copy.copy(place, partial)
        filesystem.sync_filesystem(partial.parent)
        filesystem.rename_new(partial, in_use)
        filesystem.sync_parents(in_use)
    if entry.identity:
        placing.bring(kept, place)
    else:
        btrfs.delete_directory(place)
        filesystem.sync_parents(place)
    return True


def _lost(record: Record) -> list[Entry]:
    return [e for e in record.entries if e.identity and not _is(e.kept, e.identity) and not _is_back(e)]


def _delete(directory: Path, record: Record) -> None:
    for entry in record.entries:
        if formats.FILE_HANDLES not in record.requires:
            btrfs.delete_directory(Path(entry.place + _UNDONE))
    for kept in map(Path, record.directories):
        if not home.is_ours(kept, record.run):
            continue  # no name that we give: whatever it is, it stays
        for entry in record.entries:
            if kept in Path(entry.kept).parents:
                btrfs.delete_directory(Path(entry.kept))  # first, since it may be a subvolume
        btrfs.delete_directory(kept)
        if kept.parent.name == home.KEPT:
            _remove_if_empty(kept.parent)
    filesystem.remove(directory / f"{record.run}.json")


def _remove_if_empty(directory: Path) -> None:
    try:
        with beneath.parent(directory) as (above, name):
            os.rmdir(name, dir_fd=above)
    except OSError:
        return  # another restore's things are in it, or it is gone


def _was_taken_back(record: Record) -> bool:
    """It was killed between its last step and the end: all that was there is back already."""
    replaced = [entry for entry in record.entries if entry.identity]
    return bool(replaced) and not _holds_something(record) and all(map(_is_back, replaced))


def _holds_something(record: Record) -> bool:
    return any(entry.identity and _is(entry.kept, entry.identity) for entry in record.entries)


def _is_back(entry: Entry) -> bool:
    """A copy that is kept no more was copied back."""
    if entry.copied:
        return not _is_there(entry.kept)
    return _is(entry.place, entry.identity)


def _is_there(path: str) -> bool:
    return beneath.status(path) is not None


def _is(path: str, identity: str) -> bool:
    """Whether what is at a path now is what the identity was taken of."""
    if not _DEVICE_AND_INODE.fullmatch(identity):
        return bool(identity) and beneath.identity(path) == identity
    found = beneath.status(path)
    return found is not None and identity == f"{found.st_dev}:{found.st_ino}"
