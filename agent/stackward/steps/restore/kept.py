"""What a restore replaced stays for seven days, so that `--undo` can put it back.

It is kept in a directory of the run (`home`), outside of what containers can write to wherever the file system allows. A
record in `<state>/kept/<run>.json` says where everything stood. Putting back may be done twice: what is back already is left
alone. Nothing is reached through a symbolic link: a container may have put one into its own tree since.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from stackward.core import records as formats
from stackward.core.errors import RefusedError, StackwardError
from stackward.core.model import display
from stackward.steps import verified_copy
from stackward.steps.restore import home, placing
from stackward.steps.restore.kept_records import (
    UNDONE,
    Entry,
    LeftAlone,
    Record,
    every,
    left_alone,
    parse,
    places_of_ours,
    records,
    write,
)
from stackward.tools import beneath, btrfs, filesystem
from stackward.tools.beneath import LinkOnTheWayError
from stackward.tools.process import CommandError

__all__ = [
    "Entry",
    "Expired",
    "LeftAlone",
    "Record",
    "discard_unfinished",
    "entry_for",
    "expire",
    "foretold",
    "latest",
    "left_alone",
    "parse",
    "places_of_ours",
    "put_back",
    "records",
    "require",
    "told",
    "write",
]

KEPT_FOR = timedelta(days=7)
FORGOTTEN_AFTER = timedelta(days=60)
_DEVICE_AND_INODE = re.compile(r"\d+:\d+")  # an identity as versions before 0.2 wrote it


@dataclass(frozen=True, slots=True)
class Expired:
    """Which restores nothing is kept of any more, and of which it is still there although its time is over, and why."""

    gone: tuple[str, ...]
    stuck: tuple[str, ...]


def entry_for(place: Path, kept: Path) -> Entry:
    """The entry for what stands at `place` now."""
    return Entry(str(place), str(kept), beneath.identity(place))


def latest(directory: Path, subject: str) -> Record:
    """The newest restore of `subject` that can be undone.

    Raises:
        RefusedError: the newest one is of a newer version, or its record cannot be read.
        StackwardError: there is none.
    """
    for record in every(directory):
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
            btrfs.delete_directory(Path(entry.place + UNDONE))
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
