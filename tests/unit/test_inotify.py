"""Real inotify on real directories."""

import os
import shutil
import subprocess
import sys
import time

import pytest

from stackward.tools.inotify import Inotify


@pytest.fixture
def inotify():
    with Inotify() as made:
        yield made


def seen(inotify, seconds=0.3):
    """Everything told within the next moments: (directory's name, name)."""
    found, overflowed, deadline = set(), False, time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        got = inotify.read(left)
        found |= {(event.directory.name, event.name) for event in got.events}
        overflowed = overflowed or got.overflowed
    return (found, overflowed)


def test_what_happens_in_a_directory_is_told_and_nothing_below_it(inotify, tmp_path):
    (tmp_path / "shop" / "data").mkdir(parents=True)
    assert inotify.watch(tmp_path / "shop")
    (tmp_path / "shop" / "data" / "file").write_text("far too much of this")
    (tmp_path / "shop" / "compose.yaml").write_text("services: {}")
    os.rename(tmp_path / "shop" / "compose.yaml", tmp_path / "shop" / "compose.yml")
    assert seen(inotify)[0] == {("shop", "compose.yaml"), ("shop", "compose.yml")}


def test_reading_ends_when_time_is_up(inotify, tmp_path):
    inotify.watch(tmp_path)
    begun = time.monotonic()
    assert inotify.read(0.05).events == ()
    assert time.monotonic() - begun < 60


def test_names_that_are_not_utf_8_are_told_as_they_are(inotify, tmp_path):
    odd = tmp_path / os.fsdecode(b"caf\xe9 \n")
    odd.mkdir()
    assert inotify.watch(odd)
    (odd / os.fsdecode(b"\xff.yaml")).write_text("")
    assert seen(inotify)[0] == {(odd.name, os.fsdecode(b"\xff.yaml"))}


def test_a_directory_that_goes_or_moves_is_told_once_and_watched_no_more(inotify, tmp_path):
    for name in ("gone", "moved"):
        (tmp_path / name).mkdir()
        inotify.watch(tmp_path / name)
    shutil.rmtree(tmp_path / "gone")
    (tmp_path / "moved").rename(tmp_path / "elsewhere")
    assert seen(inotify)[0] == {("gone", ""), ("moved", "")}
    (tmp_path / "elsewhere" / "file").write_text("")
    assert seen(inotify)[0] == set()
    assert inotify.watched == frozenset()


def test_what_is_no_directory_is_not_watched(inotify, tmp_path):
    (tmp_path / "file").write_text("")
    assert not inotify.watch(tmp_path / "file")
    assert not inotify.watch(tmp_path / "nowhere")


def test_only_those_that_are_kept_go_on(inotify, tmp_path):
    for name in ("kept", "other"):
        (tmp_path / name).mkdir()
        inotify.watch(tmp_path / name)
    inotify.keep([tmp_path / "kept"])
    for name in ("kept", "other"):
        (tmp_path / name / "file").write_text("")
    assert seen(inotify)[0] == {("kept", "file")}


def test_more_than_the_kernel_keeps_is_an_overflow(inotify, tmp_path):
    """The queue holds fs.inotify.max_queued_events; equal ones in a row count once."""
    with open("/proc/sys/fs/inotify/max_queued_events") as file:
        most = int(file.read())
    inotify.watch(tmp_path)
    names = [tmp_path / "a", tmp_path / "b"]
    for number in range(most // 2 + 10):
        names[number % 2].touch()
        names[number % 2].unlink()
    assert seen(inotify)[1]


LIMITED = """
import sys
from pathlib import Path
from stackward.tools.inotify import Inotify, WatchLimitError

first, second, third = (Path(sys.argv[1], name) for name in "abc")
with Inotify() as inotify:
    assert inotify.watch(first) and inotify.watch(second)
    try:
        inotify.watch(third)
    except WatchLimitError as error:
        print(error)
    (first / "file").touch()
    print([event.name for event in inotify.read(5).events])
"""


def test_where_the_kernel_grants_no_more_it_says_so_and_goes_on_with_those_it_has(tmp_path):
    """In a user namespace of its own, where the limit holds for nobody else."""
    for name in "abc":
        (tmp_path / name).mkdir()
    script = 'echo 2 > /proc/sys/user/max_inotify_watches && exec "$@"'
    done = subprocess.run(
        ["unshare", "-Ur", "sh", "-c", script, "sh", sys.executable, "-c", LIMITED, tmp_path],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "max_inotify_watches" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"no user namespaces here: {done.stderr}")
    said = done.stdout.splitlines()
    assert said == [
        "the kernel grants no further watches: No space left on device",
        "HINT: raise fs.inotify.max_user_watches",
        "['file']",
    ]
