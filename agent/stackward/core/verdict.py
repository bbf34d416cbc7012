"""Is a stack protected, and if not, why?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from stackward.core.model import display
from stackward.core.units import format_age

if TYPE_CHECKING:
    from stackward.core.model import Stack

# A nightly backup, its retries four hours later, and the time a large one takes.
MAXIMUM_AGE = timedelta(hours=32)


class State(StrEnum):
    PROTECTED = "protected"
    UNPROTECTED = "unprotected"
    OFF = "off"  # somebody decided against backups
    UNDECIDED = "undecided"


class Cause(StrEnum):
    """Why a stack is not protected, in one word of a few: for labels of metrics, which a sentence would multiply."""

    UNREADABLE = "backup-root-unreadable"
    SHRANK = "shrank"
    DAMAGED = "damaged"
    NEVER = "never-backed-up"
    OLD = "too-old"
    NO_RECIPIENTS = "no-recipients"
    UNSEEN_SECRETS = "secrets-unseen"
    GONE = "directory-gone"
    NO_DOCKER_ROOT = "docker-root-unreadable"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one stack's backups; each text is a reason against, or ""."""

    data_at: datetime | None = None  # when the data in its newest whole backup stood still
    config_at: datetime | None = None
    damaged: str = ""  # the last verify found its newest backup damaged
    held: str = ""
    failure: str = ""  # how its last backup failed, if it is the last thing that happened
    unreadable: str = ""  # BACKUP_ROOT cannot be looked at
    data_backups: int = 0  # how many there are of its data, good or not


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reasons` are why it is not protected, `cause` is the weightiest in a word.

    `notes` are what a person should look at all the same.
    """

    stack: str
    state: State
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    last_good: datetime | None = None
    cause: Cause | None = None


def judge(stack: Stack, facts: Facts, *, recipients: bool, now: datetime) -> Verdict:
    """`recipients` says whether secrets can be backed up at all."""
    notes = tuple(problem.message for problem in stack.problems)
    if not stack.opted_in:
        state = State.UNDECIDED if stack.policy.backup is None else State.OFF
        return Verdict(stack.name, state, (stack.opted_reason,) if stack.opted_reason else (), notes)
    notes += tuple(
        f"{display(tree.source)} is not covered: {tree.reason}"
        for tree in stack.trees
        if tree.writable and not tree.covered
    )
    found = [
        (cause, text)
        for cause, text in (
            (Cause.UNREADABLE, facts.unreadable),
            (Cause.SHRANK, facts.held),
            (Cause.DAMAGED, facts.damaged),
        )
        if text
    ]
    if not facts.unreadable:
        if stack.covered_trees:
            found += _age("data", facts.data_at, now) if facts.data_at or not facts.data_backups else [_NONE_GOOD]
        found += _age("configuration", facts.config_at, now)
    if stack.secret_files and not recipients:
        found.append((Cause.NO_RECIPIENTS, "its secrets are not backed up: set STACKWARD_AGE_RECIPIENTS"))
    if stack.unseen_secrets:
        named = ", ".join(display(path) for path in stack.unseen_secrets)
        found.append((Cause.UNSEEN_SECRETS, f"its secrets are not backed up: {named} cannot be read"))
    if facts.failure:
        notes += (f"its last backup failed: {facts.failure}",)
    last_good = facts.data_at if stack.covered_trees else facts.config_at
    if not found:
        return Verdict(stack.name, State.PROTECTED, (), notes, last_good)
    reasons = tuple(text for _, text in found)
    return Verdict(stack.name, State.UNPROTECTED, reasons, notes, last_good, found[0][0])


_NONE_GOOD = (Cause.DAMAGED, "none of its data backups is whole and undamaged")


def _age(what: str, at: datetime | None, now: datetime) -> list[tuple[Cause, str]]:
    if at is None:
        return [(Cause.NEVER, f"its {what} was never backed up")]
    if now - at > MAXIMUM_AGE:
        return [(Cause.OLD, f"its {what} was last backed up {format_age(at, now)}")]
    return []
