"""What a restore replaced stays for seven days, so that `--undo` can put it back.

It is kept on its own file system, in a directory `.stackward-kept/<run>/` beside it (no backup and no listing looks into
those), so that moving it is a rename. A record in `<state>/kept/<run>.json` says where everything stood. Putting back swaps
names and may be done twice: what is back already is left alone.

A record that cannot be read, or that only a newer version understands, stays, and so does all that it names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
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
from stackward.tools import btrfs, filesystem
from stackward.tools.process import CommandError

KEPT = ".stackward-kept"
KEPT_FOR = timedelta(days=7)
FORGOTTEN_AFTER = timedelta(days=60)
UNDONE = ".stackward-undone"  # what taking back an undo record moves out of the way


@dataclass(frozen=True, slots=True)
class Entry:
    """`place` is what was replaced, `kept` where it is now. Nothing stood there: `kept` is where undoing puts the new.

    `identity` (device and inode) tells what stood there from what replaced it; "" where nothing stood there.
    """

    place: str
    kept: str
    identity: str = ""


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
    requires: tuple[str, ...] = ()  # what a version must understand to undo it, or to let it expire


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
    return Entry(str(place), str(kept), _identity(place))


def directory_beside(place: Path, run_id: str) -> Path:
    """The directory, on the file system of `place`, for what is moved away from it; not made yet."""
    return place.parent / KEPT / run_id


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
        document = formats.parse(filesystem.read_small(path, formats.LARGEST_BYTES))
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
        if not is_plain_path(directory) or not _is_home(Path(directory), run):
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
    entry = Entry(found.path("place"), found.path("kept"), found.text("identity", ""))
    if not any(Path(directory) in Path(entry.kept).parents for directory in directories):
        raise ValueError(f"{display(entry.kept)} is in no directory of it")
    return entry


def _is_home(directory: Path, run: str) -> bool:
    """Whether the directory is called as `directory_beside` calls it."""
    return directory.name == run and directory.parent.name == KEPT


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
    """What undoing would put back, and what it would take away since nothing stood there before; in words.

    `lost` is not to be seen now: it is gone, or on a volume that nobody has mounted.
    """
    lost = _lost(record)
    return {
        "places": [display(e.place) for e in record.entries if e.identity and e not in lost and not _is_back(e)],
        "taken_away": [display(e.place) for e in record.entries if not e.identity and os.path.lexists(e.place)],
        "lost": [display(entry.kept) for entry in lost],
    }


def put_back(directory: Path, record: Record, now: datetime) -> dict[str, list[str]]:
    """Undo a restore; what it had put there is kept in its stead. Returns what came back and what went, as `foretold`.

    Raises:
        StackwardError: something that was kept is no longer there. Nothing was changed.
    """
    require(record)
    changed = [entry for entry in record.entries if _put_back(entry)]
    write(directory, replace(record, undone=True, undone_at=now.isoformat()))
    return {
        "places": [display(entry.place) for entry in changed if entry.identity],
        "taken_away": [display(entry.place) for entry in changed if not entry.identity],
    }


def require(record: Record) -> None:
    """Raises StackwardError where something that was kept is no longer there."""
    if lost := _lost(record):
        named = ", ".join(display(entry.kept) for entry in lost[:5])
        raise StackwardError(f"what was kept is gone: {named}")


def discard_unfinished(directory: Path, subject: str) -> None:
    """Remove what a killed restore of `subject` left. Its undo record was taken back before; doubt keeps.

    The caller holds the lock of `subject`.
    """
    for record in records(directory):
        unfinished = not record.done or _was_taken_back(record)
        if record.subject == subject and unfinished and not _holds_something(record):
            _delete(directory, record)


def expire(directory: Path, now: datetime) -> Expired:
    """Delete what has been kept for seven days. What cannot be deleted is tried again the next time."""
    gone, stuck = [], []
    for record in records(directory):
        age = now - datetime.fromisoformat(record.undone_at or record.at)
        # A directory that is not there may be on a volume that is not mounted just now.
        seen = all(os.path.lexists(kept) for kept in record.directories)
        if record.done and age >= (KEPT_FOR if seen else FORGOTTEN_AFTER):
            try:
                _delete(directory, record)
            except (OSError, CommandError) as error:
                stuck.append(f"what was kept for the undoing of {record.what} ({record.at}) cannot be deleted: {error}")
            else:
                gone.append(f"{record.what} ({record.at})")
    return Expired(tuple(gone), tuple(stuck))


def _put_back(entry: Entry) -> bool:
    place, kept = Path(entry.place), Path(entry.kept)
    if entry.identity:
        if _is_back(entry):
            return False
        if not os.path.lexists(place):
            filesystem.rename_new(kept, place)
        elif not filesystem.exchange(kept, place):
            aside = place.with_name(place.name + UNDONE)
            os.rename(place, aside)
            os.rename(kept, place)
            os.rename(aside, kept)
    else:
        if not os.path.lexists(place) or os.path.lexists(kept):
            return False
        kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.rename(place, kept)
    for parent in {place.parent, kept.parent}:
        filesystem.sync_path(parent)
    return True


def _lost(record: Record) -> list[Entry]:
    return [e for e in record.entries if e.identity and not os.path.lexists(e.kept) and not _is_back(e)]


def _delete(directory: Path, record: Record) -> None:
    for entry in record.entries:
        btrfs.delete_directory(Path(entry.place + UNDONE))
    for kept in record.directories:
        _delete_kept(Path(kept), [Path(entry.kept) for entry in record.entries])
    (directory / f"{record.run}.json").unlink(missing_ok=True)


def _delete_kept(kept: Path, entries: Sequence[Path]) -> None:
    if kept.parent.name != KEPT:
        return  # no name that we give: whatever it is, it stays
    for entry in entries:
        if kept in entry.parents:
            btrfs.delete_directory(entry)  # first, since it may be a subvolume
    btrfs.delete_directory(kept)
    try:
        kept.parent.rmdir()
    except OSError:
        return  # another restore's things are in it, or it is gone


def _was_taken_back(record: Record) -> bool:
    """It was killed between its last step and the end: all that was there is back already."""
    replaced = [entry for entry in record.entries if entry.identity]
    return bool(replaced) and not _holds_something(record) and all(map(_is_back, replaced))


def _holds_something(record: Record) -> bool:
    return any(entry.identity and os.path.lexists(entry.kept) for entry in record.entries)


def _is_back(entry: Entry) -> bool:
    return _identity(Path(entry.place)) == entry.identity


def _identity(place: Path) -> str:
    try:
        status = os.lstat(place)
    except OSError:
        return ""
    return f"{status.st_dev}:{status.st_ino}"
