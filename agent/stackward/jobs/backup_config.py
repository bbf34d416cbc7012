"""backup-config: DOCKER_ROOT's configuration as a tarball, and the secrets that it leaves out as an encrypted capsule.

The tarball never holds a secret. Both are made under an unlisted name; their checksum stands beside their final name before
they get it, so whatever is listed is whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any

from stackward.config import Settings
from stackward.core.artifacts import (
    CHECKSUM_SUFFIX,
    SIGNATURE_SUFFIX,
    config_name,
    incoming_name,
    parse_name,
    secrets_name,
)
from stackward.core.errors import NO_ROOM, StackwardError
from stackward.core.model import Counts, JobResult, Outcome, Stack, StackResult, display
from stackward.core.progress import Progress
from stackward.steps import backup_root, signing
from stackward.steps.appliance_id import owner
from stackward.steps.backup import config_files
from stackward.steps.backup.config_files import LeftOut, Selection
from stackward.steps.crashpoints import reach
from stackward.tools import age, archive, filesystem, manifest, tar_writer

NO_RECIPIENTS = "secrets are not backed up: set STACKWARD_AGE_RECIPIENTS"
_OUTSIDE = b".outside"  # secrets outside DOCKER_ROOT lie below it in the capsule
_LISTED = 200  # so many of what was left out are named in a result


@dataclass(frozen=True, slots=True)
class _Made:
    """One artifact that was published, and what tar had to say about files that changed meanwhile."""

    name: str
    size_bytes: int
    warnings: tuple[str, ...]
    unreadable: tuple[bytes, ...]


def run(
    *,
    settings: Settings,
    discovery_stacks: Sequence[Stack],
    now: datetime,
    progress: Progress,
    dry_run: bool = False,
) -> JobResult:
    """Back up everything under DOCKER_ROOT that is configuration. Skipped as long as no stack is opted in.

    Raises:
        RefusedError: BACKUP_ROOT is not the disk that it was, or short of space.
        SettingsError: a recipient is none; nothing was written.
        StackwardError: DOCKER_ROOT could not be read, or BACKUP_ROOT not be written.
    """
    if not any(stack.opted_in for stack in discovery_stacks):
        return JobResult(Outcome.SKIPPED, ("no stack is opted in; run `stackward init`",))
    recipients = settings.age_recipients
    if recipients:
        age.check_recipients(recipients)
    progress.step("looking for configuration")
    selection = _select(settings, discovery_stacks)
    if dry_run:
        return _result(selection, discovery_stacks, (), recipients=recipients)
    backup_root.claim(settings, now)
    _clean(settings)
    stamp = _free_stamp(settings, now)
    made = [_make_tarball(settings, selection, stamp, progress)]
    if recipients and selection.secrets:
        made.append(_make_capsule(settings, selection, stamp, progress))
    failed = [LeftOut(path, "it cannot be read", Outcome.FAILED) for one in made for path in one.unreadable]
    selection = replace(selection, left_out=(*failed, *selection.left_out))
    return _result(selection, discovery_stacks, made, recipients=recipients)


def _select(settings: Settings, stacks: Sequence[Stack]) -> Selection:
    try:
        return config_files.select(settings, stacks)
    except OSError as error:
        raise StackwardError(
            f"DOCKER_ROOT {display(settings.docker_root)} cannot be read: {error.strerror}",
            hint="is it mounted into the appliance at the same path?",
        ) from error


def _free_stamp(settings: Settings, now: datetime) -> datetime:
    """`now` in local time, or the next second that has no backup yet (clocks are set back once a year)."""
    stamp = now.astimezone(settings.zone)
    while any(os.path.lexists(settings.backup_root / name(stamp)) for name in (config_name, secrets_name)):
        stamp += timedelta(seconds=1)
    return stamp


def _make_tarball(settings: Settings, selection: Selection, stamp: datetime, progress: Progress) -> _Made:
    progress.step("writing the config tarball", total_bytes=selection.total_bytes)
    name = config_name(stamp)

    def write(file: IO[bytes], members: Sequence[bytes]) -> archive.Written:
        reach("config-incoming", settings.crash_point)
        return archive.create(
            file, settings.docker_root, members, on_bytes=lambda count: progress.advance(byte_count=count)
        )

    written, unreadable = _write(_incoming(settings, name), selection.members, write)
    _publish(settings, name, written.sha256)
    return _Made(name, written.bytes, written.warnings, unreadable)


def _make_capsule(settings: Settings, selection: Selection, stamp: datetime, progress: Progress) -> _Made:
    progress.step("writing the secrets capsule", total_files=len(selection.secrets))
    name = secrets_name(stamp)
    incoming = _incoming(settings, name)

    def write(file: IO[bytes], members: Sequence[bytes]) -> archive.Written:
        with age.encrypting(settings.age_recipients, file) as sink:
            return archive.create(sink, settings.docker_root, members, threads=1, outside=_OUTSIDE)

    # Among secrets from outside DOCKER_ROOT: the key that signs what this appliance makes, for the host that takes its place.
    key = signing.key_file(settings)
    own = [os.fsencode(os.path.realpath(path)) for path in (key, key.with_name(key.name + ".pub"))]
    written, unreadable = _write(incoming, (*selection.capsule_members, *own), write)
    _publish(settings, name, manifest.hash_file(os.fsencode(incoming)))
    return _Made(name, os.path.getsize(settings.backup_root / name), written.warnings, unreadable)


def _write(
    incoming: Path, members: Sequence[bytes], write: Callable[[IO[bytes], Sequence[bytes]], archive.Written]
) -> tuple[archive.Written, tuple[bytes, ...]]:
    """Write the archive of all members that can be read, and name the others: one bad file spoils no other stack."""
    unreadable: set[bytes] = set()
    while True:
        try:
            with _writing(incoming) as file:
                written = write(file, [member for member in members if member not in unreadable])
        except tar_writer.UnreadableError as error:
            if not set(error.names) - unreadable or not set(members).issuperset(error.names):
                raise
            unreadable.update(error.names)
        else:
            return written, tuple(sorted(unreadable))


def _incoming(settings: Settings, name: str) -> Path:
    return settings.backup_root / incoming_name(owner(settings), f"config-{name}")


@contextmanager
def _writing(incoming: Path) -> Iterator[IO[bytes]]:
    """A new file that is gone again when writing it fails."""
    try:
        descriptor = os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        with suppress(OSError):
            os.unlink(incoming)
        if isinstance(error, OSError):
            raise _unwritable(incoming.parent, error) from error
        raise


def _publish(settings: Settings, name: str, sha256: str) -> None:
    """The checksum and the signature first: a tarball that is listed can be verified, whenever the power goes."""
    incoming = _incoming(settings, name)
    line = manifest.format_line(sha256, os.fsencode(name))
    beside = {CHECKSUM_SUFFIX: line, SIGNATURE_SUFFIX: signing.sign(settings, line)}
    for suffix, content in beside.items():
        with _writing(_incoming(settings, name + suffix)) as file:
            file.write(content)
    try:
        for suffix in beside:
            filesystem.replace(_incoming(settings, name + suffix), settings.backup_root / (name + suffix))
        filesystem.sync_path(settings.backup_root)
        reach("config-checksum", settings.crash_point)
        filesystem.rename_new(incoming, settings.backup_root / name)
        filesystem.sync_path(settings.backup_root)
    except OSError as error:
        raise _unwritable(settings.backup_root, error) from error


def _unwritable(backup_root: Path, error: OSError) -> StackwardError:
    full = error.errno in NO_ROOM
    return StackwardError(
        f"BACKUP_ROOT {display(backup_root)} cannot be written to: {error.strerror}",
        hint="make room (`stackward prune --replaced`)" if full else "look for disk errors in the kernel's log",
    )


def _clean(settings: Settings) -> None:
    """Remove what killed runs left: half files, and checksums whose file never got its name."""
    backup_root.clean_incoming(settings, incoming_name("", "config-"))
    names = set(os.listdir(settings.backup_root))
    for name in names:
        subject = name.removesuffix(SIGNATURE_SUFFIX).removesuffix(CHECKSUM_SUFFIX)
        if subject != name and subject not in names and parse_name(subject, settings.zone) is not None:
            os.unlink(settings.backup_root / name)


def _result(
    selection: Selection, stacks: Sequence[Stack], made: Sequence[_Made], *, recipients: Sequence[str]
) -> JobResult:
    opted_in = [stack for stack in stacks if stack.opted_in]
    directories = {os.fsencode(stack.directory.name) for stack in stacks}
    warnings = [warning for one in made for warning in one.warnings]
    results = tuple(_stack_result(stack, selection, warnings, made, recipients) for stack in opted_in)
    elsewhere = [one for one in selection.left_out if _top(one.path) not in directories]
    said = {reason for result in results for reason in result.reasons}
    reasons = [_sentence(one) for one in elsewhere if one.outcome is not Outcome.OK]
    reasons += [warning for warning in warnings if warning not in said]
    outcome = Outcome.worst([*(result.outcome for result in results), *([Outcome.WARN] if reasons else [])])
    return JobResult(
        outcome=outcome,
        reasons=tuple(reasons),
        stacks=results,
        counts=Counts(files=len(selection.members) + len(selection.secrets), bytes=selection.total_bytes),
        artifacts=tuple(one.name for one in made),
        details=_details(selection, made),
    )


def _stack_result(
    stack: Stack, selection: Selection, warnings: Sequence[str], made: Sequence[_Made], recipients: Sequence[str]
) -> StackResult:
    home = os.fsencode(stack.directory.name)
    mine = [one for one in selection.left_out if _top(one.path) == home and one.outcome is not Outcome.OK]
    changed = [warning for warning in warnings if warning.startswith(f"{stack.directory.name}/")]
    outcomes = [Outcome.OK, *(one.outcome for one in mine), *([Outcome.WARN] if changed else [])]
    reasons = [*map(_sentence, mine), *changed]
    named = {os.fsencode(path) for path in stack.secret_files}
    for problem in (problem for problem in stack.problems if problem.key == "secrets"):
        outcomes.append(Outcome.WARN)
        reasons.append(problem.message)
    if not recipients and any(_top(path) == home or path in named for path in selection.secrets):
        outcomes.append(Outcome.WARN)
        reasons.append(NO_RECIPIENTS)
    return StackResult(
        stack=stack.name,
        outcome=Outcome.worst(outcomes),
        reasons=tuple(reasons),
        artifact=made[0].name if made else "",
    )


def _details(selection: Selection, made: Sequence[_Made]) -> dict[str, Any]:
    return {
        "files": len(selection.members),
        "bytes": selection.total_bytes,
        "secrets": [display(path) for path in selection.secrets],
        "left_out": [
            {"path": display(one.path), "reason": one.reason, "outcome": one.outcome.value}
            for one in selection.left_out[:_LISTED]
        ],
        "left_out_in_all": len(selection.left_out),
        "ignored_files": selection.files_left_out,
        "artifacts": {one.name: one.size_bytes for one in made},
    }


def _sentence(one: LeftOut) -> str:
    return f"{display(one.path)} is left out: {one.reason}"


def _top(path: bytes) -> bytes:
    return path.partition(b"/")[0]
