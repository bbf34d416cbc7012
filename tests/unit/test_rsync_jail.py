"""What is copied from a tree in use: all of the tree, and nothing that a link in it leads to."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hostile import SECRET, flipped_for_link, leaks, make_victim
from stackward.core.errors import RefusedError
from stackward.steps.backup import copying, day, second_pass, unseen
from stackward.tools import beneath, filesystem, process, rsync, tree_root

NAMES = [f"{number:03}" for number in range(150)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    make_victim(tree / "d/deep", NAMES, "its own content....")
    make_victim(tmp_path / "victim/deep", NAMES)
    assert len("its own content....") == len(SECRET)
    return tree


def test_a_link_that_takes_a_directory_s_place_meanwhile_is_not_followed(tree: Path, tmp_path: Path) -> None:
    for turn in range(25):
        with flipped_for_link(tree / "d", tmp_path / "victim"), tree_root.opened(tree) as root:
            try:
                rsync.copy(root, tmp_path / f"copy{turn}")
                rsync.copy_named(
                    root, tmp_path / f"copy{turn}", [b"d/deep/%03d" % n for n in range(150)], "--ignore-times"
                )
            except process.CommandError:
                pass  # what comes and goes so is not copied, and that is said
        assert leaks(tmp_path / f"copy{turn}") == []


def test_both_passes_read_no_other_s_files(tree: Path, tmp_path: Path) -> None:
    root_directory = tmp_path / "backups"
    root_directory.mkdir()
    for turn in range(8):
        made = day.begin(root_directory, f"data-2026-11-{turn + 10}", f"run{turn}", None)
        with flipped_for_link(tree / "d", tmp_path / "victim"), tree_root.opened(tree) as root:
            try:
                began = filesystem.stamp()
                first = copying.first_pass(made, root, "a", None, ())
                second_pass.copy(made, root, "a", (), first, began - 5, lambda: 60.0)
                unseen.parted(root, made.place("a"))
            except process.CommandError:
                pass  # what comes and goes so is not copied, and that is said
        assert leaks(made.path) == []


def test_no_content_of_others_is_compared(tree: Path, tmp_path: Path) -> None:
    """A digest, or a difference, would tell of it."""
    (tree / "d").rename(tree / "e")
    (tree / "d").symlink_to(tmp_path / "victim")
    with tree_root.opened(tree) as root:
        assert root.status(b"d/deep/000") is None
        assert not root.is_directory(b"d")
        with pytest.raises(FileNotFoundError):
            root.open_file(b"d/deep/000")
        os.mkfifo(tree / "fifo")
        with pytest.raises(FileNotFoundError):
            root.open_file(b"fifo")
        assert (
            list(tree_root.names_of(root.descriptor, {(s.st_dev, s.st_ino) for s in [os.stat(tree / "d/deep/000")]}))
            == []
        )
    assert tree_root.count_files(tree, enough=1000) == 150
    (tmp_path / "link").symlink_to(tree)
    with pytest.raises(beneath.LinkOnTheWayError), tree_root.opened(tmp_path / "link"):
        pass


def test_what_rsync_has_to_say_names_the_tree(tree: Path, tmp_path: Path) -> None:
    with tree_root.opened(tree) as root:
        with pytest.raises(process.CommandError) as caught:
            rsync.copy_named(root, tmp_path / "copy", [b"not-there"])
        assert f'"/not-there" in {tree} failed: No such file' in str(caught.value)
        assert f"-- {tree}/ {tmp_path}/copy/" in str(caught.value)
        with pytest.raises(process.TimeLimitError):
            rsync.copy(root, tmp_path / "copy", time_limit_seconds=0)


def test_filters_links_holes_and_odd_names_reach_it(tree: Path, tmp_path: Path) -> None:
    odd = [b"new\nline", b"lat\xe9", b"-rf", b"a \\#101", b"*"]
    for name in odd:
        Path(tree, os.fsdecode(name)).write_bytes(name)
    os.link(tree / "d/deep/000", tree / "twin")
    (tree / "absolute").symlink_to("/etc/passwd")
    (tree / "left.out").write_text("x")
    os.truncate(tree / "d/deep/001", 64 << 20)
    copy = tmp_path / "copy"
    with tree_root.opened(tree) as root:
        rsync.copy(root, copy, filters=["- *.out", "- /d/deep/00[2-9]"])
        rsync.copy_named(root, copy, [*odd, b"d/deep/002"])
        assert rsync.differences(root, copy, filters=["- *.out", "- /d/deep/00[2-9]"], delete=False) == ()
        gone = rsync.differences(root, copy, filters=["- *.out", "- *", "- /twin"])
    assert {item.path for item in gone if item.is_gone} >= {b"new\nline", b"lat\xe9"}
    assert not (copy / "left.out").exists()
    assert sorted(os.listdir(copy / "d/deep"))[:4] == ["000", "001", "002", "010"]
    assert (copy / "twin").samefile(copy / "d/deep/000")
    assert os.readlink(copy / "absolute") == "/etc/passwd"
    assert os.stat(copy / "d/deep/001").st_blocks < 1000
    for name in odd:
        assert Path(copy, os.fsdecode(name)).read_bytes() == name


def test_a_file_that_vanishes_is_a_warning(tree: Path, tmp_path: Path) -> None:
    stop = tmp_path / "stop"

    def churn() -> None:
        while not stop.exists():
            for name in NAMES:
                (tree / "d/deep" / name).unlink()
                (tree / "d/deep" / name).write_text("again")

    churning = multiprocessing.get_context("fork").Process(target=churn, daemon=True)
    churning.start()
    seen = set()
    deadline = 200
    while not any(seen) and deadline:
        deadline -= 1
        with tree_root.opened(tree) as root:
            seen.add(rsync.copy(root, tmp_path / "copy", extra=["--ignore-times"]).vanished)
    stop.touch()
    churning.join()
    assert True in seen


def test_without_the_right_to_it_nothing_is_copied_and_the_right_is_named(tree: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from stackward.tools import rsync, tree_root\n"
        f"with tree_root.opened(Path({str(tree)!r})) as root: rsync.copy(root, Path({str(tmp_path / 'copy')!r}))\n"
    )
    drop = ["setpriv", "--bounding-set=-sys_chroot", "--inh-caps=-sys_chroot"]
    done = subprocess.run([*drop, sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert RefusedError.__name__ in done.stderr
    assert "SYS_CHROOT" in done.stderr
    assert not list(tmp_path.glob("copy/*"))


def test_its_sender_ends_with_it(tree: Path, tmp_path: Path) -> None:
    os.truncate(tree / "d/deep/000", 4 << 30)  # reading as many zeros takes a while
    script = (
        "from pathlib import Path; from stackward.tools import rsync, tree_root\n"
        f"with tree_root.opened(Path({str(tree)!r})) as root:\n"
        f"    rsync.copy(root, Path({str(tmp_path / 'copy')!r}), extra=['--checksum'])\n"
    )
    with subprocess.Popen([sys.executable, "-c", script]) as running:
        while len(jailed := _in_jail(tree)) < 1:
            assert running.poll() is None
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
    for _ in range(500):
        if not [pid for pid in jailed if Path(f"/proc/{pid}").exists() and _state(pid) != "Z"]:
            return
        time.sleep(0.01)
    pytest.fail("it reads on")


def _in_jail(tree: Path) -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/root") == str(tree):
                found.append(pid)
        except OSError:
            continue
    return found


def _state(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
