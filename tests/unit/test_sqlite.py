"""A SQLite database that is in use is copied whole; one that a link leads to is not copied."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from hostile import SECRET, flipped_for_link
from stackward.core.model import Container, Dump, Mount, Stack, Tree, TreeKind
from stackward.steps.backup import dumps
from stackward.tools import sqlite
from stackward.tools.beneath import LinkOnTheWayError
from stackward.tools.host_files import HostFiles
from stackward.tools.sqlite import SqliteError


def database(path: Path, text: str, *, wal: bool = False) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = sqlite3.connect(path)
    if wal:
        made.execute("PRAGMA journal_mode=WAL")
    made.execute("CREATE TABLE said (text)")
    made.executemany("INSERT INTO said VALUES (?)", [(f"{text}{number}",) for number in range(2000)])
    made.commit()
    return made


def said(path: Path) -> list[str]:
    return [text for (text,) in sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True).execute("SELECT text FROM said")]


@pytest.mark.parametrize("wal", [False, True], ids=["journal", "wal"])
@pytest.mark.parametrize("name", ["app.db", "?odd #%41\nnämé&mode=rwc.db", "-rf"])
def test_a_database_in_use_is_copied_with_what_is_in_its_log(tmp_path: Path, name: str, wal: bool) -> None:
    source = tmp_path / "tree/deep" / name
    in_use = database(source, "own", wal=wal)
    target = tmp_path / "copy.db"
    target.write_text("an old one")
    before = sorted(os.listdir(source.parent))
    sqlite.copy(tmp_path / "tree", os.fsencode(f"deep/{name}"), target)
    assert sorted(os.listdir(source.parent)) == before
    assert sorted(os.listdir(tmp_path)) == ["copy.db", "tree"]
    assert len(said(target)) == 2000
    in_use.close()


def test_what_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/text").write_text("no database" * 1000)
    os.mkfifo(tmp_path / "tree/fifo")
    (tmp_path / "tree/link").symlink_to("text")
    (tmp_path / "tree/up").symlink_to("..")
    for name, why in {
        "gone.db": "is not there",
        "text": "not a database",
        "fifo": "is no file",
        "link": "is no file",
    }.items():
        with pytest.raises(SqliteError, match=why):
            sqlite.copy(tmp_path / "tree", os.fsencode(name), tmp_path / "copy")
    with pytest.raises(LinkOnTheWayError):
        sqlite.copy(tmp_path / "tree", b"up/x.db", tmp_path / "copy")
    cut = tmp_path / "tree/cut.db"
    database(cut, "own").close()
    with open(cut, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)
    with pytest.raises(SqliteError, match=r"damaged|malformed"):
        sqlite.copy(tmp_path / "tree", b"cut.db", tmp_path / "copy")


def test_a_database_that_a_link_leads_to_meanwhile_is_not_copied(tmp_path: Path) -> None:
    database(tmp_path / "tree/d/app.db", "own", wal=True).close()
    database(tmp_path / "victim/app.db", SECRET, wal=True).close()
    for one in (tmp_path / "tree/d", tmp_path / "victim"):
        os.chmod(one, 0o700)
    with flipped_for_link(tmp_path / "tree/d", tmp_path / "victim"):
        for turn in range(15):
            target = tmp_path / f"copy{turn}"
            try:
                sqlite.copy(tmp_path / "tree", b"d/app.db", target)
            except (SqliteError, LinkOnTheWayError):
                continue
            assert SECRET not in "".join(said(target))


def stack_with(tmp_path: Path, *trees: Tree) -> Stack:
    return Stack(name="evil", directory=tmp_path / "docker/evil", project="evil", trees=trees)


def container_with(*mounts: Mount) -> Container:
    return Container(id="1", name="app", service="app", project="evil", state="running", mounts=mounts)


@pytest.mark.parametrize(
    "path", ["/data/../../victim/app.db", "/data/link/app.db", "/elsewhere/app.db", "/nowhere/app.db"]
)
def test_no_label_leads_out_of_the_stack_s_own_trees(tmp_path: Path, path: str) -> None:
    database(tmp_path / "docker/victim/app.db", SECRET).close()
    data = tmp_path / "docker/evil/data"
    data.mkdir(parents=True)
    (data / "link").symlink_to(tmp_path / "docker/victim")
    tree = Tree("evil", "data", TreeKind.DATA, data, data, writable=True)
    mounts = [Mount("bind", "", str(data), "/data", writable=True)]
    mounts += [Mount("bind", "", str(tmp_path / "docker/victim"), "/elsewhere", writable=True)]
    with pytest.raises(dumps.DumpError):
        dumps._sqlite(
            stack_with(tmp_path, tree),
            container_with(*mounts),
            Dump("app", "sqlite", path),
            tmp_path / "copy",
            HostFiles(),
        )
    assert not (tmp_path / "copy").exists() or SECRET.encode() not in (tmp_path / "copy").read_bytes()


@pytest.mark.parametrize("how", ["tree", "stack's directory", "volume bound elsewhere"])
def test_the_stack_s_own_database_is_found(tmp_path: Path, how: str) -> None:
    home = tmp_path / "docker/evil"
    database(home / "data/sub/app.db", "own").close()
    tree = Tree("evil", "data", TreeKind.DATA, home / "data", home / "data", writable=True)
    mount, path = Mount("bind", "", str(home / "data"), "/data", writable=True), "/data/sub/app.db"
    if how == "stack's directory":
        mount, path = Mount("bind", "", str(home), "/app", writable=True), "/app/data/sub/app.db"
    elif how == "volume bound elsewhere":
        tree = Tree("evil", "v", TreeKind.VOLUME, home / "data", home / "data", writable=True, volume="evil_v")
        mount = Mount("volume", "evil_v", "/var/lib/docker/volumes/evil_v/_data", "/data", writable=True)
    dumps._sqlite(
        stack_with(tmp_path, tree), container_with(mount), Dump("app", "sqlite", path), tmp_path / "copy", HostFiles()
    )
    assert len(said(tmp_path / "copy")) == 2000
