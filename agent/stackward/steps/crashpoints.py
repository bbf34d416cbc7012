"""Named places where a test may kill the process, to prove that no crash there loses or stops anything.

A point is reached only where `STACKWARD_CRASH_POINT` names it; the process then ends as by SIGKILL, without any clean-up.
"""

from __future__ import annotations

import os
import signal

POINTS = (
    "data-incoming",  # the day's incoming directory was made
    "data-hooked",  # pre-backup hooks ran, post hooks have not
    "data-undo-written",  # the way back is on disk, nothing has been stopped
    "data-quiesced",  # containers stand still
    "data-snapshot",  # the sources' snapshots exist, containers still stand still
    "data-resumed",  # containers run again, nothing has been copied
    "data-copied",  # one stack is copied, its manifest lines are not written
    "data-manifest",  # the incoming day is whole and synced, but not published
    "data-exchanged",  # published; the replaced day has no name yet
    "data-published",  # published; the run is not recorded
    "config-incoming",  # the tarball is being written
    "config-checksum",  # its checksum is there, the tarball has no final name yet
    "prune-renamed",  # a backup has left the listing, but not the disk
    "restore-stopped",  # the stack stands still, nothing has been moved
    "restore-aside",  # what was there was moved aside, nothing put back yet
    "restore-copied",  # the data is back, the stack stands still
    "staging-stopped",  # the staging instances are down, the new snapshot has not taken .nightly's place
    "staging-swapped",  # it has, and the instances are still down
    "drill-placed",  # a copy of the backup was made, nothing started on it
    "drill-started",  # the instance of a drill runs
    "undo-half",  # while taking an undo record back, between two of its steps
)

PATH_POINTS = ("path-placed",)  # of a path that is restored, the first thing has its name, and no other

SNAPSHOT_POINTS = (
    "snapshot-made",  # a snapshot is there, but not listed
    "nightly-made",  # the new `.nightly` is there under another name; staging runs
    "nightly-swapped",  # the names are swapped; staging stands still
    "nightly-resumed",  # staging goes on, last night's snapshot is still there
)

CONVERT_POINTS = (
    "convert-proven",  # the copy is there, compared and named; the stack stands still on the old tree
    "convert-swapped",  # a link leads to it; the stack stands still
    "convert-volumes",  # the record for named volumes is on disk, none of them was touched
    "convert-freed",  # the containers that had the volume are removed
    "convert-poured",  # what it held is in another one; it is empty
    "convert-removed",  # there is no volume of its name
    "convert-resumed",  # the stack runs on it; the copy is not yet called finished
)


def reach(point: str, chosen: str) -> None:
    """Die here if `chosen` is this point."""
    if point not in POINTS + PATH_POINTS + SNAPSHOT_POINTS + CONVERT_POINTS:
        raise ValueError(f"{point} is no crash point")
    if chosen == point:
        os.kill(os.getpid(), signal.SIGKILL)
