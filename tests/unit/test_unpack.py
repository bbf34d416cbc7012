"""Archives as a hostile hand would make them: nothing leaves the directory, and what is not unpacked is named."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stackward.core import posix_acl
from stackward.core.errors import DiskFullError, StackwardError
from stackward.tools import archive, unpack


def tarball(*members: tuple[str, dict[str, object], bytes]) -> bytes:
    """A .tar.gz of members with exactly these names, types and contents."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        for name, more, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mode = 0o644
            for key, value in more.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))
    return made.getvalue()


def file(name: str, content: bytes = b"x", **more: object) -> tuple[str, dict[str, object], bytes]:
    return name, more, content


def link(name: str, to: str) -> tuple[str, dict[str, object], bytes]:
    return name, {"type": tarfile.SYMTYPE, "linkname": to}, b""


def hard(name: str, to: str) -> tuple[str, dict[str, object], bytes]:
    return name, {"type": tarfile.LNKTYPE, "linkname": to}, b""


class Place:
    def __init__(self, root: Path) -> None:
        self.victim, self.to = root / "victim", root / "to"
        self.victim.mkdir()
        (self.victim / "compose.yaml").write_text("victim")
        self.to.mkdir()

    def unpack(self, data: bytes, **more: object) -> dict[str, str]:
        options = {"most_bytes": 1 << 30, **more}
        left_out = unpack.unpack(io.BytesIO(data), self.to, lambda _path: True, **options)
        return {os.fsdecode(one.name): one.why for one in left_out}

    def require_victim(self) -> None:
        assert os.listdir(self.victim) == ["compose.yaml"]
        found = os.stat(self.victim / "compose.yaml")
        assert (found.st_nlink, found.st_mode & 0o7777) == (1, 0o644)
        assert (self.victim / "compose.yaml").read_text() == "victim"


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_names_that_lead_out_are_left_out(place):
    told = place.unpack(
        tarball(file("../victim/pwned"), file("a/../../victim/pwned"), file("/etc/pwned"), file("good"))
    )
    assert set(told) == {"../victim/pwned", "a/../../victim/pwned", "/etc/pwned"}
    assert os.listdir(place.to) == ["good"]
    place.require_victim()


def test_nothing_is_written_through_a_link_of_the_archive(place):
    told = place.unpack(tarball(link("l", str(place.victim)), file("l/pwned"), file("l/compose.yaml"), file("good")))
    assert set(told) == {"l/pwned", "l/compose.yaml"}
    assert sorted(os.listdir(place.to)) == ["good", "l"]
    place.require_victim()


def test_a_second_member_of_a_name_takes_nothings_place(place):
    told = place.unpack(
        tarball(file("a", b"first"), link("a", str(place.victim)), file("a/pwned"), file("a", b"second"))
    )
    assert (place.to / "a").read_text() == "first"
    assert told["a"] == "it is in the archive twice"
    assert "a/pwned" in told


def test_a_directory_that_is_a_link_by_then_is_not_changed_by_its_attributes(place):
    told = place.unpack(
        tarball(("d", {"type": tarfile.DIRTYPE, "mode": 0o777}, b""), link("d", str(place.victim)), file("d/inner"))
    )
    assert told == {"d": "it is in the archive twice"}
    assert stat.S_IMODE(place.victim.stat().st_mode) != 0o777
    place.require_victim()


def test_hard_links_lead_to_files_of_the_same_archive_only(place):
    data = tarball(
        file("a"), hard("b", "a"), hard("c", "../victim/compose.yaml"), hard("d", str(place.victim / "compose.yaml")),
        link("l", str(place.victim)), hard("e", "l/compose.yaml"), hard("f", "later"), file("later"),
    )  # fmt: skip
    told = place.unpack(data)
    assert set(told) == {"c", "d", "e", "f"}
    assert os.stat(place.to / "a").st_ino == os.stat(place.to / "b").st_ino
    place.require_victim()


def test_device_nodes_and_rights_are_restored_only_where_they_are_allowed(place, tmp_path):
    data = tarball(
        ("null", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}, b""),
        file("su", mode=0o4755, uid=0),
        file("group", mode=0o2755),
        ("shared", {"type": tarfile.DIRTYPE, "mode": 0o2775}, b""),
    )
    told = place.unpack(data)
    assert set(told) == {"null", "su", "group"}
    assert not os.path.lexists(place.to / "null")
    assert stat.S_IMODE((place.to / "su").stat().st_mode) == 0o755
    assert stat.S_IMODE((place.to / "shared").stat().st_mode) == 0o2775  # a directory gives nobody rights

    place.to = tmp_path / "allowed"
    place.to.mkdir()
    assert place.unpack(data, privileged=lambda _path, _member: True) == {}
    assert (place.to / "null").is_char_device()
    assert stat.S_IMODE((place.to / "su").stat().st_mode) == 0o4755


def test_an_archive_that_would_fill_the_disk_is_refused(place):
    with pytest.raises(DiskFullError, match=r"big has 1 MiB"):
        place.unpack(tarball(file("small"), file("big", bytes(1 << 20))), most_bytes=1000)


def test_a_header_that_would_fill_the_memory_is_damage(place):
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    with pytest.raises(StackwardError, match="damaged"):
        place.unpack(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(10240)))


def test_archives_are_brought_together_without_a_way_out(place, tmp_path):
    """The link of one archive is no way for the other one's files."""
    first, second = tmp_path / "first", tmp_path / "second"
    for directory, data in (
        (first, tarball(link("site/l", str(place.victim)), file("site/compose.yaml"), file("site/sub/kept"))),
        (
            second,
            tarball(
                file("site/l/pwned"), file("site/.env", b"secret"), file("site/sub/.env"), file("site/compose.yaml/x")
            ),
        ),
    ):
        directory.mkdir()
        place.to = directory
        assert place.unpack(data) == {}
    left_out = {os.fsdecode(one.name) for one in unpack.merge(second, first)}
    assert left_out == {"site/l", "site/compose.yaml"}
    assert (first / "site/.env").read_text() == "secret"
    assert sorted(os.listdir(first / "site/sub")) == [".env", "kept"]
    place.require_victim()


NAMES = st.sampled_from(
    [
        "a",
        "a/b",
        "a/b/c",
        "./a",
        "/a",
        "..",
        "../victim/x",
        "a/../../victim/x",
        "a/..",
        ".",
        "",
        "a//b",
        "l",
        "l/x",
        "a\udcff",
    ]
) | st.text(max_size=5)
MEMBERS = st.lists(
    st.tuples(
        NAMES,
        st.fixed_dictionaries(
            {
                "type": st.sampled_from(
                    [
                        tarfile.REGTYPE,
                        tarfile.DIRTYPE,
                        tarfile.SYMTYPE,
                        tarfile.LNKTYPE,
                        tarfile.FIFOTYPE,
                        tarfile.CHRTYPE,
                        b"9",
                    ]
                ),
                "linkname": NAMES | st.just("VICTIM"),
                "mode": st.integers(0, 0o7777),
                "mtime": st.integers(0, 2**33),
            }
        ),
        st.binary(max_size=20),
    ),
    max_size=8,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(members=MEMBERS, cut=st.integers(0, 400), flip=st.none() | st.integers(0, 4000))
def test_whatever_an_archive_says_nothing_outside_is_touched(tmp_path_factory, members, cut, flip):
    place = Place(tmp_path_factory.mktemp("fuzz"))
    for _name, more, _content in members:
        if more["linkname"] == "VICTIM":
            more["linkname"] = str(place.victim)
    try:
        plain = bytearray(gzip.decompress(tarball(*members)))
    except (ValueError, UnicodeError):
        return
    if flip is not None and flip < len(plain):
        plain[flip] ^= 0x5A
    data = gzip.compress(bytes(plain[: len(plain) - cut * 7] if cut < 40 else plain), 1)
    with suppress(StackwardError, OSError):
        place.unpack(data)
    place.require_victim()
    for directory, names, files in os.walk(place.to):
        for name in [*names, *files]:
            assert os.path.realpath(directory).startswith(os.path.realpath(place.to))
            assert os.lstat(os.path.join(directory, name)).st_nlink < 20


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_an_archive_of_any_bytes_is_damage(data):
    for content in (data, gzip.compress(data)):
        try:
            list(archive.members(io.BytesIO(content)))
        except StackwardError:
            continue


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["user", "group"]), st.integers(0, 2**32 - 2), st.sampled_from(["r--", "rw-", "--x", "rwx"])
        ),
        max_size=4,
        unique_by=lambda one: one[:2],
    )
)
def test_access_lists_are_the_same_as_text_and_as_attribute(entries):
    lines = [
        "user::rw-",
        "group::r--",
        "mask::rwx",
        "other::---",
        *(f"{kind}:{number}:{bits}" for kind, number, bits in entries),
    ]
    value = posix_acl.from_text(",".join(lines))
    assert sorted(posix_acl.to_text(value).split(",")) == sorted(lines)


@pytest.mark.parametrize("text", ["user:root:rw-", "user::rwz", "nobody::r--", "user:99999999999:r--", "x"])
def test_what_is_no_access_list_is_told(text):
    with pytest.raises(ValueError, match="access list"):
        posix_acl.from_text(text)
