from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stackward.core.model import Policy, Problem, Stack, Tree, TreeKind
from stackward.core.verdict import Cause, Facts, State, judge

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
FRESH = NOW - timedelta(hours=10)
GOOD = Facts(data_at=FRESH, config_at=FRESH)


def tree(**more):
    path = Path("/opt/docker/shop/data")
    return Tree("shop", "data", TreeKind.DATA, path, path, writable=True, **more)


def stack(**more):
    values = {"opted_in": True, "policy": Policy(backup=True), "trees": (tree(),), **more}
    return Stack("shop", Path("/opt/docker/shop"), "shop", **values)


def verdict(facts, one=None, *, recipients=True):
    return judge(one or stack(), facts, recipients=recipients, now=NOW)


def test_a_fresh_whole_backup_protects():
    found = verdict(GOOD)
    assert (found.state, found.reasons, found.last_good) == (State.PROTECTED, (), FRESH)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (Facts(config_at=FRESH), "its data was never backed up"),
        (Facts(config_at=FRESH, data_backups=2), "none of its data backups is whole and undamaged"),
        (Facts(data_at=FRESH), "its configuration was never backed up"),
        (Facts(NOW - timedelta(days=3), FRESH), "its data was last backed up 3d ago"),
        (Facts(FRESH, FRESH, damaged="data-1 is damaged"), "data-1 is damaged"),
        (Facts(FRESH, FRESH, held="it is empty now"), "it is empty now"),
        (Facts(unreadable="BACKUP_ROOT is gone"), "BACKUP_ROOT is gone"),
    ],
)
def test_each_lack_is_a_reason_against(facts, reason):
    found = verdict(facts)
    assert (found.state, found.reasons) == (State.UNPROTECTED, (reason,))


@pytest.mark.parametrize(
    ("facts", "cause"),
    [
        (GOOD, None),
        (Facts(config_at=FRESH), Cause.NEVER),
        (Facts(NOW - timedelta(days=3), FRESH), Cause.OLD),
        (Facts(FRESH, FRESH, damaged="yes"), Cause.DAMAGED),
        (Facts(damaged="yes", held="it is empty now"), Cause.SHRANK),
        (Facts(unreadable="gone", held="it is empty now"), Cause.UNREADABLE),
    ],
)
def test_the_weightiest_reason_is_told_in_a_word(facts, cause):
    assert verdict(facts).cause == cause


def test_secrets_that_nobody_can_encrypt_leave_a_stack_unprotected():
    with_secrets = stack(secret_files=(Path("/opt/docker/shop/.env"),))
    assert verdict(GOOD, with_secrets).state is State.PROTECTED
    found = verdict(GOOD, with_secrets, recipients=False)
    assert (found.state, found.reasons) == (
        State.UNPROTECTED,
        ("its secrets are not backed up: set STACKWARD_AGE_RECIPIENTS",),
    )


def test_a_stack_without_data_needs_its_configuration_only():
    found = verdict(Facts(config_at=FRESH), stack(trees=()))
    assert (found.state, found.last_good) == (State.PROTECTED, FRESH)


def test_what_should_be_looked_at_is_noted_without_taking_protection_away():
    other = tree(covered=False, reason="on a remote file system")
    one = stack(trees=(tree(), other), problems=(Problem("shop", "a label is wrong"),))
    found = verdict(Facts(FRESH, FRESH, failure="disk full"), one)
    assert found.state is State.PROTECTED
    assert found.notes == (
        "a label is wrong",
        "/opt/docker/shop/data is not covered: on a remote file system",
        "its last backup failed: disk full",
    )


@pytest.mark.parametrize(("backup", "state"), [(None, State.UNDECIDED), (False, State.OFF)])
def test_nobody_decided_is_not_the_same_as_no(backup, state):
    found = verdict(GOOD, stack(opted_in=False, policy=Policy(backup=backup), opted_reason="so"))
    assert (found.state, found.reasons) == (state, ("so",))


def test_secrets_that_cannot_be_read_are_in_no_backup():
    found = verdict(GOOD, stack(unseen_secrets=(Path("/etc/shadow"),)))
    assert (found.state, found.cause) == (State.UNPROTECTED, Cause.UNSEEN_SECRETS)
    assert "/etc/shadow" in found.reasons[0]
