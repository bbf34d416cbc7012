import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from stackward.core.errors import BusyError
from stackward.tools.locks import Locks

HOLD = """
import sys, time
from pathlib import Path
from stackward.tools.locks import Locks
with Locks(Path(sys.argv[1])).hold(sys.argv[2], what="backup-data", shared=sys.argv[3] == "shared"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def locks(tmp_path):
    return Locks(tmp_path / "locks")


@contextmanager
def held_elsewhere(tmp_path, resource, how="alone"):
    """Another process holds the resource; it is killed in the end, as by SIGKILL from outside."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "locks", resource, how],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    ) as child:
        assert child.stdout.readline() == b"held\n"
        try:
            yield child
        finally:
            child.kill()


def test_the_second_one_is_told_who_holds_it(tmp_path, locks):
    with held_elsewhere(tmp_path, "backup-root") as child:
        with (
            pytest.raises(BusyError, match=rf"backup-root is in use by backup-data \(process {child.pid}\)"),
            locks.hold("backup-root"),
        ):
            pass
        assert not locks.is_free("backup-root")


def test_a_killed_holder_holds_nothing(tmp_path, locks):
    with held_elsewhere(tmp_path, "backup-root") as child:
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert locks.is_free("backup-root")
        assert locks.holders("backup-root") == ()
        with locks.hold("backup-root"):
            pass


def test_shared_holders_share_and_shut_out_an_exclusive_one(tmp_path, locks):
    with held_elsewhere(tmp_path, "backup-root", "shared"), locks.hold("backup-root", shared=True):
        with pytest.raises(BusyError), locks.hold("backup-root"):
            pass
        assert not locks.is_free("backup-root")


def test_asking_whether_it_is_free_makes_nobody_busy(locks):
    with locks.hold("a"):
        pass
    ending = threading.Event()

    def ask():
        while not ending.is_set():
            locks.is_free("a")

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        for _ in range(200):
            with locks.hold("a"):
                pass
    finally:
        ending.set()
        asker.join()


def test_waiting_says_for_whom_and_ends_with_the_holder(tmp_path, locks):
    with held_elsewhere(tmp_path, "backup-root") as child:
        told = []

        def on_wait(holders):
            told.extend(holders)
            child.kill()

        with locks.hold("backup-root", wait=True, on_wait=on_wait):
            assert [holder.what for holder in told] == ["backup-data"]


def test_a_lock_of_a_name_that_is_used_once_leaves_no_file(tmp_path, locks):
    with locks.hold("run-1", forget=True):
        assert not locks.is_free("run-1")
    assert locks.is_free("run-1")
    assert list((tmp_path / "locks").iterdir()) == []


@pytest.mark.parametrize("name", ["a/b", "../../x", "caf\udce9", "100%"])
def test_odd_names_stay_within_the_directory(tmp_path, locks, name):
    with locks.hold(name):
        assert len(list((tmp_path / "locks").iterdir())) == 1


def test_what_is_held_is_named(tmp_path, locks):
    with locks.hold("free"):
        pass
    with held_elsewhere(tmp_path, "a/b") as child:
        held = locks.held()
        assert list(held) == ["a/b"]
        assert [holder.pid for holder in held["a/b"]] == [child.pid]
