"""Several appliances on one BACKUP_ROOT: each has a state directory of its own, as on hosts of their own."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest

from stackward.config import Settings
from stackward.core.artifacts import LEASE, incoming_name, parse_name
from stackward.core.errors import BusyError
from stackward.core.model import JobResult, Outcome
from stackward.runner import COPIES_BACKUPS, READS_BACKUPS, WRITES_BACKUPS, Runner
from stackward.steps import backup_root
from stackward.steps.appliance_id import appliance_id, owner
from stackward.steps.lease import Lease
from stackward.store import Store
from stackward.tools.locks import Locks
from unit.hosts import SmallHost

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)
QUICK = {"beat_seconds": 0.02, "stale_seconds": 0.2, "poll_seconds": 0.01}
SLOW = {"beat_seconds": 0.02, "stale_seconds": 1e6, "poll_seconds": 0.01}


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "share"
    path.mkdir()
    return path


def appliance(root, name, **speed):
    """An appliance on a host of that name."""
    state = root.parent / name
    state.mkdir(exist_ok=True)
    settings = Settings(backup_root=root, state_dir=state, docker_root=root.parent / "none", minimum_free_bytes=0)
    return Lease(settings, Locks(state / "locks"), lambda: name, lambda: NOW, **(speed or SLOW))


def left_by(root, name, **changes):
    """The lease of an appliance that was killed."""
    note = {"appliance": appliance_id(appliance(root, name).settings), "host": name, "job": "backup-data"}
    note |= {"since": "2026-11-21 02:00:00 UTC", "token": "x", "beat": "0000000000", **changes}
    (root / LEASE).write_text(json.dumps(note))


def taken(lease, on_wait=lambda _text: None):
    with lease.held("backup-data", on_wait):
        return json.loads((lease.path).read_bytes())["host"]


def test_while_one_holds_it_another_is_told_who_and_since_when(root):
    with appliance(root, "alpha").held("backup-data"):
        with pytest.raises(BusyError, match=r"in use by the appliance of alpha \(backup-data\) since 2026-11-21 02:00"):
            taken(appliance(root, "beta"))
        assert parse_name(LEASE, UTC) is None
    assert os.listdir(root) == []
    assert taken(appliance(root, "beta")) == "beta"


HOLD = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from unit.test_lease import appliance
with appliance(Path({root!r}), {name!r}).held("backup-data"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def holder(root, name):
    script = HOLD.format(path=sys.path, root=str(root), name=name)
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "held\n"
    return child


def test_a_killed_holder_keeps_others_out_and_not_its_own_next_run(root):
    with holder(root, "alpha") as alpha:
        with pytest.raises(BusyError, match="alpha"):
            taken(appliance(root, "beta"))
        with pytest.raises(BusyError, match="process"):
            taken(appliance(root, "alpha"))
        alpha.send_signal(signal.SIGKILL)
    with pytest.raises(BusyError, match="alpha"):
        taken(appliance(root, "beta"))
    assert taken(appliance(root, "alpha")) == "alpha"
    assert taken(appliance(root, "beta")) == "beta"


@pytest.mark.parametrize("skew_hours", [-9000, -5, 5, 9000])
def test_a_holder_that_lives_is_never_taken_for_dead_whatever_the_clocks_say(root, skew_hours):
    beta = appliance(root, "beta", **QUICK)
    for beat in range(5):
        left_by(root, "alpha", beat=f"{beat:010d}", since="1970-01-01 00:00:00 UTC")
        at = time.time() + skew_hours * 3600
        os.utime(root / LEASE, (at, at))
        with pytest.raises(BusyError, match="alpha"):
            taken(beta)
        time.sleep(2 * QUICK["stale_seconds"])


def test_the_holder_gives_signs_of_life_by_itself(root):
    with appliance(root, "alpha").held("backup-data"):
        first = (root / LEASE).read_bytes()
        until = time.monotonic() + 60
        while (root / LEASE).read_bytes() == first:
            assert time.monotonic() < until
            time.sleep(0.01)


def test_a_dead_one_is_taken_over_by_a_later_run_once_it_was_seen_unchanged_for_long(root):
    left_by(root, "alpha")
    with pytest.raises(BusyError, match="alpha"):
        taken(appliance(root, "beta", **QUICK))
    time.sleep(2 * QUICK["stale_seconds"])
    said = []
    assert taken(appliance(root, "beta", **QUICK), said.append) == "beta"
    assert "taking BACKUP_ROOT over from the appliance of alpha" in said[0]
    assert os.listdir(root) == []


def test_what_was_seen_before_a_reboot_counts_for_nothing(root):
    left_by(root, "alpha")
    beta = appliance(root, "beta", **QUICK)
    with pytest.raises(BusyError):
        taken(beta)
    seen = beta.settings.state_dir / "lease-seen"
    seen.write_text(json.dumps({**json.loads(seen.read_text()), "boot": "another"}))
    time.sleep(2 * QUICK["stale_seconds"])
    with pytest.raises(BusyError):
        taken(beta)


def test_one_that_shows_itself_at_the_last_moment_keeps_it(root):
    """As after a server was away: nothing could be seen for an hour, and nothing be written."""
    left_by(root, "alpha")
    beta = appliance(root, "beta", **QUICK)
    with pytest.raises(BusyError):
        taken(beta)
    time.sleep(2 * QUICK["stale_seconds"])
    with pytest.raises(BusyError, match="alpha"):
        taken(beta, lambda _text: left_by(root, "alpha", beat="0000000001"))


def test_of_many_that_would_take_over_one_does_at_a_time(root):
    left_by(root, "alpha")
    inside, wrong, done = [], [], []

    def work(name):
        lease = appliance(root, name, beat_seconds=1.0, stale_seconds=1.0, poll_seconds=0.01)
        while True:
            try:
                with lease.held("backup-data"):
                    inside.append(name)
                    time.sleep(0.1)
                    wrong.extend([list(inside)] if inside != [name] else [])
                    inside.remove(name)
                    done.append(name)
                    return
            except BusyError:
                lease.pause()

    threads = [threading.Thread(target=work, args=(f"host{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert wrong == []
    assert sorted(done) == [f"host{number}" for number in range(4)]


def put_fifo(path, _aside):
    os.mkfifo(path)


def put_link(path, aside):
    aside.write_text("precious")
    path.symlink_to(aside)


def put_directory(path, _aside):
    path.mkdir()
    (path / "file").write_text("x")


def put(content):
    return lambda path, _aside: path.write_bytes(content)


@pytest.mark.parametrize(
    "make",
    [put_fifo, put_link, put_directory, *map(put, [b"", b"\xff\x00", b"[" * 4000, b"[]", b"{}", b"x" * 10_000_000])],
    ids=["fifo", "link", "directory", "empty", "bytes", "deep", "list", "lacking", "huge"],
)
def test_whatever_lies_there_is_waited_for_as_long_as_a_lease_and_no_longer(root, tmp_path, make):
    make(root / LEASE, tmp_path / "aside")
    beta = appliance(root, "beta", **QUICK)
    with pytest.raises(BusyError, match="cannot be read"):
        taken(beta)
    time.sleep(2 * QUICK["stale_seconds"])
    assert taken(beta) == "beta"
    backup_root.clean_incoming(beta.settings)
    assert os.listdir(root) == []
    if make is put_link:
        assert (tmp_path / "aside").read_text() == "precious"


def test_a_holder_that_was_given_up_for_dead_is_told_to_end(root):
    told = threading.Event()
    alpha = appliance(root, "alpha")
    alpha.lost = told.set
    with alpha.held("backup-data"):
        left_by(root, "beta")
        assert told.wait(60)
    assert json.loads((root / LEASE).read_bytes())["host"] == "beta"  # it is not alpha's to remove


def test_one_that_was_removed_by_hand_is_made_again(root):
    with appliance(root, "alpha").held("backup-data"):
        (root / LEASE).unlink()
        until = time.monotonic() + 60
        while not (root / LEASE).exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        with pytest.raises(BusyError, match="alpha"):
            taken(appliance(root, "beta"))


def test_what_a_killed_run_held_is_given_up_as_soon_as_its_appliance_looks(root):
    with holder(root, "alpha") as alpha:
        appliance(root, "alpha").take_back()
        assert (root / LEASE).exists()
        alpha.send_signal(signal.SIGKILL)
    appliance(root, "beta").take_back()
    assert (root / LEASE).exists()
    appliance(root, "alpha").take_back()
    assert os.listdir(root) == []
    left_by(root, "beta")
    appliance(root, "alpha").take_back()
    assert (root / LEASE).exists()


def test_one_that_was_killed_before_it_could_say_who_it_is_does_not_block_its_own_next_run(root):
    (root / LEASE).touch()
    with pytest.raises(BusyError, match="cannot be read"):
        taken(appliance(root, "beta"))
    (appliance(root, "alpha").settings.state_dir / "lease-held").touch()
    assert taken(appliance(root, "alpha")) == "alpha"
    assert os.listdir(root) == []


def test_on_another_disk_than_the_one_that_was_there_nothing_is_written(root):
    alpha = appliance(root, "alpha")
    backup_root.claim(alpha.settings, NOW)
    (root / ".stackward-id").unlink()
    with alpha.held("backup-data"):
        assert os.listdir(root) == []


class TestRunner:
    @pytest.fixture
    def runner_of(self, root):
        with ExitStack() as stores:

            def make(name, **speed):
                lease = appliance(root, name, **speed)
                store = stores.enter_context(
                    Store.open(lease.settings.state_dir / "s.sqlite", now=NOW, locks=lease.locks)
                )
                return Runner(store, lease.locks, lambda: NOW, lease=lease)

            yield make

    @pytest.mark.parametrize("resources", [WRITES_BACKUPS, COPIES_BACKUPS])
    def test_who_writes_has_it_and_nothing_is_recorded_of_a_busy_run(self, root, runner_of, resources):
        left_by(root, "alpha")
        beta = runner_of("beta", **SLOW)
        with pytest.raises(BusyError, match="alpha"):
            beta.execute("backup-data", lambda _: JobResult(Outcome.OK), resources=resources)
        assert beta.store.runs() == []

    def test_who_reads_or_only_looks_needs_none_and_writes_nothing(self, root, runner_of):
        left_by(root, "alpha")
        before = (root / LEASE).read_bytes()
        beta = runner_of("beta", **SLOW)

        def look(_context):
            assert os.listdir(root) == [LEASE]
            return JobResult(Outcome.OK)

        assert beta.execute("verify", look, resources=READS_BACKUPS).outcome is Outcome.OK
        assert beta.execute("backup-data", look, resources=WRITES_BACKUPS, dry_run=True).outcome is Outcome.OK
        assert (root / LEASE).read_bytes() == before

    def test_wait_waits_for_the_other_and_holds_up_nobody_here_meanwhile(self, root, runner_of):
        beta = runner_of("beta", **SLOW)
        with holder(root, "alpha") as alpha:
            ended = []

            def wait():
                result = beta.execute(
                    "backup-data", lambda _: JobResult(Outcome.OK), resources=WRITES_BACKUPS, wait=True
                )
                ended.append(result)

            thread = threading.Thread(target=wait)
            thread.start()
            for _ in range(20):
                with beta.locks.hold("backup-root", shared=True, wait=True):
                    assert not ended
            alpha.communicate("go on\n")
            thread.join(60)
            assert ended[0].outcome is Outcome.OK

    def test_wait_takes_over_from_a_dead_one_by_itself(self, root, runner_of):
        left_by(root, "alpha")
        beta = runner_of("beta", **QUICK)
        done = beta.execute("backup-data", lambda _: JobResult(Outcome.OK), resources=WRITES_BACKUPS, wait=True)
        assert done.outcome is Outcome.OK


class TestUnfinished:
    """What another appliance has not finished is its own, also while we have the lease: it may go on with a drill."""

    def names(self, root, *owners):
        for who in owners:
            (root / incoming_name(who, "data-2026-11-21-x")).mkdir()

    def test_it_is_left_alone(self, root):
        alpha, beta = appliance(root, "alpha"), appliance(root, "beta")
        ours, theirs = owner(alpha.settings), owner(beta.settings)
        self.names(root, ours, theirs, "")
        with alpha.held("backup-data"):
            removed = backup_root.clean_incoming(alpha.settings)
        assert set(removed) == {f".incoming-{ours}.data-2026-11-21-x", ".incoming-data-2026-11-21-x"}
        assert os.listdir(root) == [f".incoming-{theirs}.data-2026-11-21-x"]

    def test_what_nobody_has_touched_for_a_week_goes_by_the_clock_of_the_share(self, root):
        alpha = appliance(root, "alpha", beat_seconds=1e6, stale_seconds=1e6, poll_seconds=0.01)
        self.names(root, "0123abcd")
        with alpha.held("backup-data"):
            week = 7 * 86400
            made = os.lstat(root / incoming_name("0123abcd", "data-2026-11-21-x")).st_ctime
            os.utime(root / LEASE, (made + week - 60, made + week - 60))
            assert backup_root.clean_incoming(alpha.settings) == []
            os.utime(root / LEASE, (made + week + 60, made + week + 60))
            assert len(backup_root.clean_incoming(alpha.settings)) == 1


def test_a_verb_that_finds_another_appliance_at_work_ends_with_75_and_names_it(tmp_path):
    host = SmallHost(tmp_path / "host")
    try:
        left_by(host.settings.backup_root, "alpha")
        host.stack("site", 'services: {web: {image: x, labels: {stackward.backup: "true"}}}', data__a="1")
        environment = {**os.environ, **host.environment, "PYTHONPATH": os.pathsep.join(sys.path)}
        argv = [sys.executable, "-m", "stackward.cli.main"]
        for words in (["backup", "--config"], ["prune"]):
            done = subprocess.run([*argv, *words], env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 75, done
            assert "BACKUP_ROOT is in use by the appliance of alpha" in done.stderr
        assert os.listdir(host.settings.backup_root) == [LEASE]
    finally:
        host.store.close()
