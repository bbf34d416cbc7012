"""tools/beneath and what renames and removes by it: no link on the way is followed, by the kernel's call or without it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stackward.tools import beneath, filesystem
from stackward.tools.beneath import LinkOnTheWayError


@pytest.fixture(params=["openat2", "walk"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kernel's own call, and the walk that stands in for it where it is unknown or filtered."""
    if request.param == "walk":
        monkeypatch.setattr(beneath, "_SYS_OPENAT2", -1)  # a call that no kernel knows: ENOSYS
    return str(request.param)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/compose.yaml").write_text("victim")
    return tmp_path / "victim"


@pytest.fixture
def tree(tmp_path: Path, victim: Path) -> Path:
    (tmp_path / "tree/real").mkdir(parents=True)
    (tmp_path / "tree/real/compose.yaml").write_text("own")
    (tmp_path / "tree/link").symlink_to(victim)
    return tmp_path / "tree"


@pytest.mark.usefixtures("way")
def test_a_link_on_the_way_or_at_its_end_is_refused_and_told(tree: Path) -> None:
    for path in ("link", "link/compose.yaml"):
        with pytest.raises(LinkOnTheWayError, match="symbolic link"):
            beneath.open_path(tree / path)
    with beneath.opened(tree / "real/compose.yaml") as descriptor:
        assert os.read(descriptor, 10) == b"own"


@pytest.mark.usefixtures("way")
def test_a_path_below_a_descriptor_cannot_leave_it(tree: Path) -> None:
    with beneath.opened(tree, beneath.DIRECTORY) as root:
        with beneath.opened(b"real/compose.yaml", below=root) as descriptor:
            assert os.read(descriptor, 10) == b"own"
        for path in (b"link/compose.yaml", b"link"):
            with pytest.raises(LinkOnTheWayError):
                beneath.open_path(path, below=root)
        for path in (b"../victim/compose.yaml", b"/etc/passwd", b"real/../../victim"):
            with pytest.raises(ValueError, match="without links"):
                beneath.open_path(path, below=root)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    "act",
    [
        lambda tree, _: filesystem.rename_new(tree / "link/compose.yaml", tree / "stolen"),
        lambda tree, _: filesystem.rename_new(tree / "real/compose.yaml", tree / "link/planted"),
        lambda tree, _: filesystem.exchange(tree / "real/compose.yaml", tree / "link/compose.yaml"),
        lambda tree, _: filesystem.replace(tree / "real/compose.yaml", tree / "link/compose.yaml"),
        lambda tree, _: filesystem.remove(tree / "link/compose.yaml"),
        lambda tree, _: filesystem.remove_tree(tree / "link/compose.yaml"),
        lambda tree, _: beneath.make_directories(tree / "link/made/deeper"),
        lambda tree, _: beneath.make_directories(tree / "link"),
        lambda tree, _: filesystem.sync_parents(tree / "link/compose.yaml"),
    ],
)
def test_nothing_is_renamed_made_or_removed_through_a_link(
    tree: Path, victim: Path, act: Callable[[Path, Path], object]
) -> None:
    before = sorted(os.walk(victim))
    with pytest.raises(LinkOnTheWayError):
        act(tree, victim)
    assert sorted(os.walk(victim)) == before
    assert (victim / "compose.yaml").read_text() == "victim"


def test_removing_a_link_removes_the_link_itself(tree: Path, victim: Path) -> None:
    filesystem.remove_tree(tree / "link")
    assert not os.path.lexists(tree / "link")
    assert (victim / "compose.yaml").read_text() == "victim"


@pytest.fixture
def flipping(tree: Path, victim: Path) -> Iterator[None]:
    """`tree/real` is swapped for a link to the victim and back, as fast as a container could."""
    stop = threading.Event()
    (tree / "trap").symlink_to(victim)

    def flip() -> None:
        while not stop.is_set():
            filesystem.exchange(tree / "real", tree / "trap")

    thread = threading.Thread(target=flip)
    thread.start()
    yield
    stop.set()
    thread.join()


@pytest.mark.usefixtures("way", "flipping")
def test_a_directory_that_is_swapped_all_the_time_never_leads_outside(tree: Path, victim: Path) -> None:
    seen = set()
    for _ in range(3000):
        try:
            with beneath.opened(tree / "real/compose.yaml") as descriptor:
                seen.add(os.read(descriptor, 10))
        except (LinkOnTheWayError, FileNotFoundError, NotADirectoryError):
            seen.add(b"refused")
        try:
            filesystem.replace(tree / "real/compose.yaml", tree / "real/compose.yaml.new")
            filesystem.replace(tree / "real/compose.yaml.new", tree / "real/compose.yaml")
        except (LinkOnTheWayError, FileNotFoundError, NotADirectoryError):
            seen.add(b"refused")
    assert b"victim" not in seen
    assert os.listdir(victim) == ["compose.yaml"]


def test_an_identity_survives_a_rename_and_belongs_to_one_file_only(tmp_path: Path) -> None:
    """ext4 and tmpfs hand a freed inode number to the next file at once."""
    seen = set()
    for number in range(50):
        path = tmp_path / "file"
        path.write_text("x")
        identity = beneath.identity(path)
        assert identity
        assert identity not in seen
        seen.add(identity)
        path.rename(tmp_path / f"moved{number % 2}")
        assert beneath.identity(tmp_path / f"moved{number % 2}") == identity
        (tmp_path / f"moved{number % 2}").unlink()
    assert beneath.identity(tmp_path / "file") == ""


def test_an_identity_is_had_without_file_handles_and_of_links_and_fifos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    with monkeypatch.context() as patched:
        patched.setattr(beneath, "_handle", lambda *_: "")  # as behind a filter, or on a file system without handles
        plain = [beneath.identity(tmp_path / name) for name in ("file", "link", "fifo")]
    handles = [beneath.identity(tmp_path / name) for name in ("file", "link", "fifo")]
    assert len({*plain, *handles}) == 6
    assert all(plain)
