from __future__ import annotations

import gzip
import hashlib
import io
import os
import socket
import subprocess
import tarfile
import threading
from pathlib import Path

import pytest

from stackward.core.errors import DamageError
from stackward.tools import archive, tar_writer
from stackward.tools import unpack as unpacking

ODD_NAMES = [
    b"-rf",
    b"new\nline",
    b"back\\slash",
    b"back\\nslash-n",
    b"caf\xe9",
    b"tab\t",
    b"*star",
    b"[a]",
    "ünï".encode(),
    b"x" * 250,
]


def pack(base: Path, names: list[bytes], **options: object) -> bytes:
    made = io.BytesIO()
    written = archive.create(made, base, names, **options)
    assert written.sha256 == hashlib.sha256(made.getvalue()).hexdigest()
    assert written.bytes == len(made.getvalue())
    return made.getvalue()


def unpack(data: bytes, destination: Path, names: list[bytes] | None = None) -> None:
    destination.mkdir(exist_ok=True)
    wanted = {archive.plain_name(name) for name in names} if names is not None else None
    left_out = unpacking.unpack(
        io.BytesIO(data), destination, lambda path: wanted is None or path in wanted, most_bytes=1 << 40,
        privileged=lambda _path, _member: True,
    )  # fmt: skip
    assert left_out == []


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def test_odd_names_survive_and_can_be_picked_one_by_one(tmp_path):
    base = tmp_path / "from"
    base.mkdir()
    for name in ODD_NAMES:
        Path(base, os.fsdecode(name)).write_bytes(name)
    data = pack(base, ODD_NAMES)
    assert [member.name for member in archive.members(io.BytesIO(data))] == ODD_NAMES
    unpack(data, tmp_path / "to")
    assert sorted(os.listdir(os.fsencode(tmp_path / "to"))) == sorted(ODD_NAMES)
    for name in ODD_NAMES:
        one = tmp_path / "one"
        unpack(data, one, [name])
        assert os.listdir(os.fsencode(one)) == [name]
        assert Path(one, os.fsdecode(name)).read_bytes() == name
        Path(one, os.fsdecode(name)).unlink()


def test_what_plain_tar_makes_of_it_is_the_same(tmp_path):
    base = tmp_path / "from"
    (base / "sub").mkdir(parents=True)
    (base / "sub" / "file").write_bytes(os.urandom(3 << 20))
    (tmp_path / "a.tar.gz").write_bytes(pack(base, [b"sub", b"sub/file"]))
    to = tmp_path / "to"
    to.mkdir()
    run("tar", "-xzf", str(tmp_path / "a.tar.gz"), "-C", str(to))
    assert (to / "sub" / "file").read_bytes() == (base / "sub" / "file").read_bytes()


def test_owners_modes_times_xattrs_acls_hard_links_and_holes_survive(tmp_path):
    base = tmp_path / "from"
    base.mkdir()
    (base / "file").write_text("x")
    os.link(base / "file", base / "twin")
    os.symlink("/no/where", base / "dangling")
    os.mkfifo(base / "pipe")
    with open(base / "sparse", "wb") as file:
        file.seek(64 << 20)
        file.write(b"end")
    os.chown(base / "file", 12345, 54321)
    os.chmod(base / "file", 0o4751)
    os.setxattr(base / "file", "user.note", b"\0\xff")
    os.setxattr(base / "file", "trusted.note", b"t")
    run("setfacl", "-m", "u:4242:rw", str(base / "sparse"))
    os.utime(base / "sparse", ns=(1_600_000_000_123_456_789, 1_600_000_000_123_456_789))
    data = pack(base, [os.fsencode(name) for name in sorted(os.listdir(base))])
    to = tmp_path / "to"
    unpack(data, to)
    found = os.stat(to / "file")
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777, found.st_nlink) == (12345, 54321, 0o4751, 2)
    assert os.path.samefile(to / "file", to / "twin")
    assert os.getxattr(to / "file", "user.note") == b"\0\xff"
    assert os.getxattr(to / "file", "trusted.note") == b"t"
    assert "user:4242:rw-" in run("getfacl", "-cn", str(to / "sparse"))
    assert os.readlink(to / "dangling") == "/no/where"
    assert (to / "pipe").is_fifo()
    sparse = os.stat(to / "sparse")
    assert sparse.st_size == (64 << 20) + 3
    assert sparse.st_blocks * 512 < 1 << 20
    assert sparse.st_mtime_ns == 1_600_000_000_123_456_789


def test_members_tell_names_kinds_sizes_and_links(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_text("four")
    os.symlink("f", tmp_path / "d" / "l")
    directory, file, link = archive.members(io.BytesIO(pack(tmp_path, [b"d", b"d/f", b"d/l"])))
    assert directory.is_directory
    assert not directory.is_regular
    assert (file.is_regular, file.size, file.name) == (True, 4, b"d/f")
    assert (link.kind, link.link) == (tarfile.SYMTYPE, b"f")


def test_a_directory_comes_without_what_is_in_it(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_text("x")
    assert [member.name for member in archive.members(io.BytesIO(pack(tmp_path, [b"d"])))] == [b"d"]


def test_a_vanished_file_is_a_warning_and_the_rest_is_whole(tmp_path):
    (tmp_path / "here").write_text("x")
    made = io.BytesIO()
    written = archive.create(made, tmp_path, [b"gone\nfile", b"here"])
    assert written.warnings == ("gone\\nfile: vanished while it was read",)
    made.seek(0)
    assert [member.name for member in archive.members(made)] == [b"here"]


def test_a_file_that_changes_while_read_is_a_warning(tmp_path):
    growing = tmp_path / "log"
    growing.write_bytes(b"x" * (30 << 20))
    stop = threading.Event()

    def write() -> None:
        with open(growing, "ab", buffering=0) as file:
            while not stop.wait(0.001):
                file.write(b"y")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        written = archive.create(io.BytesIO(), tmp_path, [b"log"])
    finally:
        stop.set()
        writer.join()
    assert written.warnings == ("log: file changed as we read it",)


def test_what_cannot_be_read_fails(tmp_path):
    (tmp_path / "file").write_text("")
    odd = b"file/\n\\ \xe9: \x01'"
    with pytest.raises(tar_writer.UnreadableError, match="Not a directory") as caught:
        archive.create(io.BytesIO(), tmp_path, [b"file/below", odd])
    assert set(caught.value.names) == {b"file/below", odd}


def test_a_full_disk_is_an_error_and_not_a_hang(tmp_path):
    (tmp_path / "big").write_bytes(os.urandom(8 << 20))
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError, match="No space left"):
        archive.create(full, tmp_path, [b"big"])


def test_absolute_names_can_be_put_below_a_prefix(tmp_path):
    outside = tmp_path / "outside" / "caf\udce9"
    outside.mkdir(parents=True)
    (outside / "s").write_text("secret")
    os.symlink("/etc/passwd", outside / "l")
    names = [os.fsencode(outside / "s"), os.fsencode(outside / "l")]
    data = pack(tmp_path, names, outside=b".outside")
    found = list(archive.members(io.BytesIO(data)))
    assert [member.name for member in found] == [b".outside" + name for name in names]
    assert found[1].link == b"/etc/passwd"


def damage(data: bytes, how: str) -> bytes:
    if how == "cut":
        return data[: len(data) // 2]
    if how == "flipped":
        middle = len(data) // 2
        return data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :]
    if how == "checksum":
        return data[:-8] + bytes([data[-8] ^ 1]) + data[-7:]
    plain = gzip.decompress(data)
    if how == "no end":
        return gzip.compress(plain[: plain.rindex(b"end") + 512], 1)
    if how == "header":
        at = plain.rindex(b"last\0")
        return gzip.compress(plain[:at] + b"LAST" + plain[at + 4 :], 1)
    return b"not a gzip at all" * 100


@pytest.mark.parametrize("how", ["cut", "flipped", "checksum", "no end", "header", "foreign"])
def test_damage_is_found(tmp_path, how):
    (tmp_path / "first").write_bytes(os.urandom(100_000))
    (tmp_path / "last").write_bytes(b"end")
    data = pack(tmp_path, [b"first", b"last"])
    assert len(list(archive.members(io.BytesIO(data)))) == 2
    with pytest.raises(DamageError):
        list(archive.members(io.BytesIO(damage(data, how))))


def test_extracting_a_damaged_archive_fails(tmp_path):
    (tmp_path / "first").write_bytes(os.urandom(100_000))
    (tmp_path / "to").mkdir()
    data = pack(tmp_path, [b"first"])
    with pytest.raises(DamageError):
        unpack(damage(data, "checksum"), tmp_path / "to")


def test_sockets_do_not_stop_it(tmp_path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "s"))
        written = archive.create(io.BytesIO(), tmp_path, [b"s"])
    assert written.warnings == ("s: socket ignored",)
