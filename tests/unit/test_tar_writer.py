"""The tar stream that config backups are: what GNU tar restores of it, and nothing of others in it."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
import threading
from pathlib import Path

import pytest

from hostile import SECRET, flipped_for_link, flipping, make_victim
from stackward.tools import archive, beneath, tar_writer

NAMES = [f"{number:03}" for number in range(100)]


def pack(base: Path, names: list[bytes], **options: object) -> tuple[bytes, archive.Written]:
    made = io.BytesIO()
    written = archive.create(made, base, names, **options)
    return made.getvalue(), written


def account(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything about what is below a directory."""
    found: dict[bytes, tuple[object, ...]] = {}
    first: dict[int, bytes] = {}
    for here, directories, files in os.walk(os.fsencode(root)):
        for name in sorted(directories + files):
            path = os.path.join(here, name)
            status = os.lstat(path)
            content: object = None
            if os.path.islink(path):
                content = os.readlink(path)
            elif os.path.isfile(path):
                content = (Path(os.fsdecode(path)).read_bytes(), status.st_blocks * 512 < status.st_size)
            attributes = {
                key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)
            }
            known = first.setdefault(status.st_ino, name) if not os.path.isdir(path) else name
            facts = (status.st_mode, status.st_uid, status.st_gid, status.st_rdev, status.st_mtime_ns)
            found[os.path.relpath(path, os.fsencode(root))] = (*facts, content, attributes, known)
    return found


def members_of(root: Path) -> list[bytes]:
    return sorted(account(root))


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Everything that is hard to keep."""
    base = tmp_path / "from"
    long = base / "directory" / ("d" * 120) / ("e" * 120)
    long.mkdir(parents=True)
    (long / ("f" * 200)).write_text("deep")
    for name in (b"caf\xe9", b"new\nline", "ünï".encode(), b"l\xe9" * 80, b"-rf", b"back\\slash", b" ", b"x=y%z"):
        Path(base, os.fsdecode(name)).write_bytes(name)
    (base / "one").write_text("linked")
    os.link(base / "one", base / "two")
    os.symlink(b"caf\xe9" * 40, os.fsencode(base / "symlink"))
    os.link(base / "symlink", base / "twin of symlink", follow_symlinks=False)
    os.setxattr(base / "symlink", "trusted.of.link", b"1", follow_symlinks=False)
    os.mkfifo(base / "fifo", 0o640)
    os.setxattr(base / "fifo", "trusted.of.fifo", b"1")
    os.mknod(base / "null", 0o666 | 0o20000, os.makedev(1, 3))
    os.mknod(base / "block", 0o600 | 0o60000, os.makedev(240, 70000))
    for name, pieces in {
        "starts": [(0, 5)],
        "ends": [(1 << 22, 5)],
        "both": [(1 << 20, 9), (3 << 20, 1)],
        "hole": [],
    }.items():
        with open(base / name, "wb") as file:
            for at, size in pieces:
                file.seek(at)
                file.write(b"x" * size)
            file.truncate(5 << 20)
    (base / "owned").write_text("x")
    os.chown(base / "owned", 4_000_000_000, 3_000_000)
    os.chmod(base / "owned", 0o6751)
    os.setxattr(base / "owned", "user.odd=name%25", b"\0\n\xff=")
    os.setxattr(base / "owned", "user.empty", b"")
    os.setxattr(base / "owned", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    subprocess.run(["setfacl", "-m", "u:4242:rw,g:7:-,m::r", base / "one"], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:4242:rwx", base / "directory"], check=True)
    os.utime(base / "owned", ns=(0, -5_250_000_000))
    os.utime(base / "two", ns=(0, 1_600_000_000_000_000_001))
    os.utime(base / "hole", ns=(0, 0))
    os.utime(base / "directory", ns=(0, 7_000_000_000))
    return base


def test_gnu_tar_restores_all_of_it(odd: Path, tmp_path: Path) -> None:
    data, written = pack(odd, members_of(odd))
    assert written.warnings == ()
    to = tmp_path / "to"
    to.mkdir()
    argv = ["tar", "-xzp", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "--same-owner", "-C", to]
    done = subprocess.run(argv, input=data, check=True, capture_output=True)
    assert all("time stamp" in line for line in done.stderr.decode().splitlines()), done.stderr
    assert account(to) == account(odd)
    assert len(gzip.decompress(data)) % 10240 == 0


def test_python_reads_it_as_it_reads_gnu_tar_s(odd: Path) -> None:
    names = members_of(odd)
    argv = ["tar", "-c", "--format=posix", "--pax-option=delete=atime,delete=ctime", "--sparse", "--xattrs"]
    argv += ["--xattrs-include=*", "--acls", "--numeric-owner", "-C", str(odd), "--null", "--verbatim-files-from"]
    argv += ["--no-recursion", "--files-from=-"]
    theirs = subprocess.run(
        argv, input=b"".join(name + b"\0" for name in names), check=True, capture_output=True
    ).stdout
    data, _ = pack(odd, names)
    assert list(archive.members(io.BytesIO(data))) == list(archive.members(io.BytesIO(gzip.compress(theirs))))


def test_a_link_that_takes_a_directory_s_place_meanwhile_is_not_followed(tmp_path: Path) -> None:
    base = tmp_path / "docker"
    make_victim(base / "evil/d", NAMES, "its own content....")
    make_victim(tmp_path / "stackward", NAMES)
    names = [b"evil", b"evil/d", *(b"evil/d/" + name.encode() for name in NAMES)]
    seen = set()
    with flipped_for_link(base / "evil/d", tmp_path / "stackward"):
        for _ in range(60):
            data, written = pack(base, names)
            plain = gzip.decompress(data)
            assert SECRET.encode() not in plain
            seen.add(b"its own content" in plain)
            seen.update(warning.rpartition(": ")[2][:15] for warning in written.warnings)
    assert {True, "a symbolic link"} <= seen, seen


def test_a_file_that_becomes_a_fifo_or_a_link_is_what_it_is_then(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text(SECRET)
    for number in range(50):
        (tmp_path / f"f{number}").write_text("own")
    names = [b"f%d" % number for number in range(50)] * 20
    (tmp_path / "link").symlink_to(victim)
    os.mkfifo(tmp_path / "fifo")
    for other in ("link", "fifo"):
        with flipping(tmp_path / "f7", tmp_path / other):
            for _ in range(10):
                data, _written = pack(tmp_path, names)
                assert SECRET.encode() not in gzip.decompress(data)


def test_absolute_names_go_through_no_link_and_nowhere_without_a_place(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").write_text(SECRET)
    (tmp_path / "link").symlink_to("real")
    data, written = pack(tmp_path, [os.fsencode(tmp_path / "link/file")], outside=b".outside")
    assert list(archive.members(io.BytesIO(data))) == []
    assert "is not followed" in written.warnings[0]
    for name in (os.fsencode(tmp_path / "real/file"), b"real/../real/file", b"real/.."):
        with pytest.raises(ValueError, match=r"name|path"):
            pack(tmp_path, [name])


def test_a_base_that_is_a_link_of_the_administrator_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").write_text("own")
    (tmp_path / "link").symlink_to("real")
    data, _ = pack(tmp_path / "link", [b"file"])
    assert [member.name for member in archive.members(io.BytesIO(data))] == [b"file"]


def test_a_file_that_shrinks_is_filled_up_and_the_rest_is_whole(tmp_path: Path) -> None:
    """It is cut after its size was written down: where the stream is full for the first time."""
    (tmp_path / "big").write_bytes(os.urandom(64 << 20))
    (tmp_path / "last").write_text("end")
    cut = threading.Event()

    def shrink(_: int) -> None:
        if not cut.is_set():
            os.truncate(tmp_path / "big", 10 << 20)
            cut.set()

    data, written = pack(tmp_path, [b"big", b"last"], on_bytes=shrink)
    assert len(written.warnings) == 1
    assert "big: File shrank by" in written.warnings[0]
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getmember("big").size == 64 << 20
        file = tar.extractfile("last")
        assert file is not None
        assert file.read() == b"end"


def test_what_cannot_be_read_costs_no_descriptor(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(tar_writer.UnreadableError):
        pack(tmp_path, [b"file/below", b"gone", b"file"])
    assert len(os.listdir("/proc/self/fd")) == before
    assert beneath.status(tmp_path / "file") is not None
