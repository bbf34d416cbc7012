"""What others may have written (an index, a manifest, a record, an ID file) leads nowhere but to where it belongs."""

from __future__ import annotations

import copy
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackward.core import artifacts, records
from stackward.core.errors import ExitCode, RefusedError
from stackward.core.index import DumpEntry, Index, StackEntry, TreeEntry, parse_index
from stackward.core.model import Outcome
from stackward.core.progress import Silent
from stackward.jobs import find, restore, verify
from stackward.steps import backup_root, catalog, left_alone
from stackward.steps.backup import day as days
from stackward.steps.instance import drill_copy
from stackward.steps.instance.drill_source import Source
from stackward.steps.restore import kept, restore_plan, restoring
from stackward.steps.restore.home import KEPT
from stackward.steps.undo import Undo
from stackward.tools import manifest, small_files
from unit.backups import seal, stack_entry, tree, write_files
from unit.hosts import NOW, SmallHost

FIXTURES = Path(__file__).parents[1] / "fixtures/records"
AT = "2026-11-21T01:00:00+00:00"
NIGHT = datetime(2026, 11, 21, 1, tzinfo=UTC)
ODD = "caf\udce9\n"
SHOP = """
    services:
      web:
        image: x
        volumes: ["./data:/data"]
        labels: {stackward.backup: "true"}
"""
# Where no backup has anything of the stack `shop`, whatever its index says.
OUTSIDE = [
    "/etc/stackward", "/", "", ".", "..", "../../../run", "shop/..", "shop/../wiki", "shop/data", "./shop", "shop/", "wiki",
    ".mounts", ".mounts/shop", ".mounts/shop/", ".mounts/shop/..", ".mounts/shop/.", ".mounts/shop/a/b", ".mounts/wiki/a",
    ".mounts/../shop", ".mounts//a", ".dumps", ".dumps/shop", ".dumps/shop/x", "shop\0", ".mounts/shop/a\0b", "x" * 300,
    "MANIFEST.sha256", "stackward.json",
]  # fmt: skip


@pytest.fixture
def host(tmp_path):
    made = SmallHost(tmp_path / "host", minimum_free_bytes=0)
    made.stack("shop", SHOP, data__a="now")
    yield made
    made.store.close()


def index_document() -> dict[str, Any]:
    trees = (
        TreeEntry("data", "data", "shop", "/opt/docker/shop/data", "/srv/shop", None, snapshot=True, files=3, bytes=9,
                  snapshot_name="shop@1", left_out=("*.tmp",), inode=256),
        TreeEntry("up", "volume", ".mounts/shop/up", "/v", "/v", "shop_up", snapshot=False, files=0, bytes=0),
    )  # fmt: skip
    entry = StackEntry(
        "shop", "shop", AT, "r1", trees, (DumpEntry("db", "postgres", ".dumps/shop/db.sql"),), images={"db": {"id": "1"}},
        external_networks=("proxy",), standstill_seconds=0.5, warnings=("w",), versions={"rsync": "3"}, began=AT,
    )  # fmt: skip
    odd = StackEntry(ODD, "p", AT, "r1", ())
    found: dict[str, Any] = json.loads(Index("2026-11-21", AT, "nas", {"shop": entry, ODD: odd}).to_json())
    return found


# The index.


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize("tree_number", [0, 1])
def test_a_path_that_is_no_trees_is_refused(path, tree_number):
    document = index_document()
    document["stacks"]["shop"]["trees"][tree_number]["path"] = path
    with pytest.raises(ValueError):
        parse_index(json.dumps(document))


@pytest.mark.parametrize("path", [*OUTSIDE[:-1], "shop", ".mounts/shop/up", ".dumps/wiki/x", ".dumps/shop/../x"])
def test_a_path_that_is_no_dumps_is_refused(path):
    document = index_document()
    document["stacks"]["shop"]["dumps"][0]["path"] = path
    if path == ".dumps/shop/x":
        assert parse_index(json.dumps(document)).stacks["shop"].dumps[0].path == path
        return
    with pytest.raises(ValueError):
        parse_index(json.dumps(document))


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/etc", "a\0", ".mounts", ".dumps", "stackward.json", "\ud800", "x" * 256]
)
def test_a_name_that_cannot_be_a_stacks_is_refused(name):
    document = index_document()
    document["stacks"] = {name: document["stacks"]["shop"] | {"stack": name, "trees": [], "dumps": []}}
    with pytest.raises(ValueError):
        parse_index(json.dumps(document))


WRONG: list[tuple[tuple[str | int, ...], object]] = [
    (("stacks", "shop", "stack"), "wiki"),
    (("stacks", "shop", "trees", 0, "mount_name"), "../up"),
    (("stacks", "shop", "trees", 0, "mount_name"), "up"),  # there are two then
    (("stacks", "shop", "trees", 1, "path"), "shop"),
    (("stacks", "shop", "trees", 0, "snapshot_name"), "../../production"),
    (("stacks", "shop", "trees", 0, "files"), -1),
    (("stacks", "shop", "trees", 0, "bytes"), 10**30),
    (("stacks", "shop", "trees", 0, "bytes"), True),
    (("stacks", "shop", "trees", 0, "snapshot"), "yes"),
    (("stacks", "shop", "trees", 0, "left_out"), "*.tmp"),
    (("stacks", "shop", "trees", 0, "volume"), 1),
    (("stacks", "shop", "trees", 0, "source"), ["/"]),
    (("stacks", "shop", "trees", 0, "source"), "\ud800"),
    (("stacks", "shop", "trees"), {}),
    (("stacks", "shop", "trees"), [1]),
    (("stacks", "shop", "at"), "yesterday"),
    (("stacks", "shop", "at"), "2026-11-21T01:00:00"),
    (("stacks", "shop", "began"), "1"),
    (("stacks", "shop", "standstill_seconds"), 1e999),
    (("stacks", "shop", "standstill_seconds"), "1"),
    (("stacks", "shop", "images"), {"db": 1}),
    (("stacks", "shop", "versions"), {"rsync": 3}),
    (("stacks", "shop", "warnings"), [1]),
    (("stacks", "shop", "warnings"), ["x" * 100_000]),
    (("stacks", "shop"), None),
    (("stacks",), [1]),
    (("created_at",), 0),
    (("host",), None),
    (("full_scan",), 1),
    (("requires",), "novelty"),
]  # fmt: skip


@pytest.mark.parametrize(("where", "value"), WRONG)
def test_what_is_not_of_its_type_or_too_large_is_refused(where, value):
    document = index_document()
    parse_index(json.dumps(document))
    put(document, where, value)
    with pytest.raises(ValueError):
        parse_index(json.dumps(document))


def put(document, where, value):
    for key in where[:-1]:
        document = document[key]
    document[where[-1]] = value


def test_a_document_without_end_is_refused():
    for text in (
        '{"a":' * 90_000,
        "[" * 90_000,
        '{"format": 1' + "0" * 5000 + "}",
        '{"host": ' + "[" * 500 + "]" * 500 + "}",
    ):
        with pytest.raises(ValueError):
            parse_index(text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(OUTSIDE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


def places_of(value, at=()):
    """Every place in a document, by its keys."""
    yield at
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places_of(inner, (*at, key))
    if isinstance(value, list):
        for number, inner in enumerate(value):
            yield from places_of(inner, (*at, number))


def mutated(document, draw):
    """The document with a few of its parts replaced, doubled or left out."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        where = draw(st.sampled_from([place for place in places_of(document) if place]))
        if draw(st.booleans()):
            put(document, where, draw(VALUES))
        elif isinstance(where[-1], str):
            holder = document
            for key in where[:-1]:
                holder = holder[key]
            holder[draw(st.sampled_from(OUTSIDE) | st.text(max_size=10))] = holder.pop(where[-1])
    return json.dumps(document)


def inside(root, path):
    return os.path.normpath(os.path.join(root, path)).startswith(f"{root}/")


@given(st.data())
def test_an_index_is_refused_or_leads_only_into_the_backup(data):
    document = data.draw(st.sampled_from([index_document(), VALUES]))
    text = mutated(document, data.draw) if isinstance(document, dict) else json.dumps(data.draw(document))
    try:
        found = parse_index(text)
    except ValueError:
        return
    assert parse_index(found.to_json()) == found
    for name, entry in found.stacks.items():
        own = (name, f".mounts/{name}", f".dumps/{name}")
        for path in (*entry.prefixes, *(dump.path for dump in entry.dumps), *(one.path for one in entry.trees)):
            assert inside("/backup", path)
            assert path in own or path.startswith(tuple(f"{one}/" for one in own[1:]))
        for one in entry.trees:
            assert "/" not in one.mount_name + one.snapshot_name
            assert ".." not in (one.mount_name, one.snapshot_name)


@given(
    st.text(max_size=40)
    | st.lists(st.sampled_from(["shop", "..", ".", "", ".mounts", ".dumps", "a\0"]), max_size=4).map("/".join)
)
def test_a_part_of_a_backup_lies_in_it(path):
    try:
        artifacts.require_path(path)
    except ValueError:
        return
    assert inside("/backup", path)
    assert os.path.normpath(path) == path


# The manifest.


@pytest.mark.parametrize(
    "path", [b"/etc/shadow", b"../x", b"a/../../x", b"a/..", b"..", b".", b"a//b", b"a/", b"a\0b", b"x/" * 8000 + b"x"]
)
def test_a_line_that_names_what_cannot_be_in_a_backup_is_none(path):
    with pytest.raises(ValueError):
        manifest.parse_line(b"0" * 64 + b"  " + path + b"\n")


@pytest.mark.parametrize("digest", [b"0x" + b"0" * 62, b"+" + b"0" * 63, b"_".join([b"0" * 31, b"0" * 32]), b" " * 64])
def test_what_only_looks_like_a_digest_to_python_is_none(digest):
    with pytest.raises(ValueError):
        manifest.parse_line(digest + b"  a\n")


def test_an_older_tools_absolute_paths_within_the_backup_are_taken():
    assert manifest.parse_line(b"0" * 64 + b"  /backup/data-1/a\n", b"/backup/data-1/") == ("0" * 64, b"a")


ODD_PATHS = st.lists(st.sampled_from([b"..", b"a", b".", b"", b"/", b"\\n"]), max_size=6).map(b"/".join)
LINES = (
    st.binary(max_size=200)
    | st.binary(max_size=60).map(lambda path: b"0" * 64 + b"  " + path)
    | ODD_PATHS.map(lambda path: b"\\" + b"a" * 64 + b"  " + path)
)


@given(LINES)
def test_a_line_is_refused_or_names_a_file_in_the_backup(line):
    try:
        digest, path = manifest.parse_line(line)
    except ValueError:
        return
    assert len(digest) == 64
    assert inside("/backup", os.fsdecode(path))
    assert manifest.parse_line(manifest.format_line(digest, path)) == (digest, path)


def test_a_line_without_an_end_takes_no_memory_and_hides_no_other(tmp_path):
    with (tmp_path / "m").open("wb") as file:
        file.write(b"0" * 64 + b"  ")
        file.truncate(50 << 20)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + b"1" * 64 + b"  a\n")
    with (tmp_path / "m").open("rb") as file:
        lines = list(manifest.raw_lines(file))
    assert [len(line) < 100_000 for line in lines] == [True, True]
    assert manifest.parse_line(lines[1]) == ("1" * 64, b"a")


NAMED = st.sampled_from([b"shop/a", b"shop/b", b"shop/a/c", b"../x", b"wiki/x", b"a", b"/etc/x", b"shop", b"shop0"])


@given(st.lists(NAMED, min_size=1, max_size=6))
def test_lines_of_others_between_a_stacks_are_no_section_of_it(tmp_path_factory, names):
    directory = tmp_path_factory.mktemp("m")
    (directory / artifacts.MANIFEST).write_bytes(b"".join(b"0" * 64 + b"  " + name + b"\n" for name in names))
    try:
        sections = days.carried_sections(directory, [StackEntry("shop", "shop", AT, "r", (tree("shop"),))])
    except ValueError:
        return
    manifest.write(directory / "carried", sections)
    with (directory / "carried").open("rb") as file:
        carried = [path for _, path in manifest.read(file)]
    assert carried == sorted(path for path in set(carried) if path.startswith(b"shop/"))


# Backups as they lie there.


def backup(host, *, indexed=True):
    path = host.settings.backup_root / "data-2026-11-21"
    write_files(path, {"shop/a": b"1", ".mounts/shop/up/b": b"2", ".dumps/shop/db.sql": b"3"})
    trees = (tree("shop"), tree(".mounts/shop/up", mount_name="up", kind="bind"))
    seal(path, NIGHT, stack_entry("shop", NIGHT, *trees, dumps=(DumpEntry("db", "postgres", ".dumps/shop/db.sql"),)))
    if not indexed:
        (path / "stackward.json").unlink()
    return path


def linked(host, link, *, indexed):
    """A backup in which a link to a directory full of secrets stands where one of its parts was."""
    import shutil

    path = backup(host, indexed=indexed)
    secret = host.root / "secret"
    write_files(
        secret, {"shop/up/age.key": b"secret", "up/age.key": b"secret", "age.key": b"secret", "shop/a": b"secret"}
    )
    shutil.rmtree(path / link)
    (path / link).symlink_to(secret)
    return path


def only(host):
    (artifact,) = catalog.catalog(host.settings, NOW)
    return artifact


@pytest.mark.parametrize("path", ["/etc/stackward", "../../../run", ".mounts/wiki/up"])
def test_a_backup_whose_index_names_a_path_outside_is_listed_with_a_problem_and_told(host, path):
    made = backup(host)
    document = json.loads((made / "stackward.json").read_text())
    document["stacks"]["shop"]["trees"][1]["path"] = path
    (made / "stackward.json").write_text(json.dumps(document))
    artifact = only(host)
    assert artifact.index is None
    assert not artifact.newer
    assert "is no part of a backup" in artifact.problem or "is no name" in artifact.problem
    assert [one.path for one in artifact.trees("shop")] == ["shop", ".mounts/shop/up"]
    assert [one.kind for one in left_alone.look(host.settings, [artifact])] == ["backup"]


LINKS = [".mounts", ".mounts/shop", ".mounts/shop/up", "shop"]


@pytest.mark.parametrize("link", [*LINKS, ".dumps", ".dumps/shop"])
def test_without_an_index_no_link_is_a_part_of_a_backup(host, link):
    linked(host, link, indexed=False)
    artifact = only(host)
    assert artifact.stacks in (("shop",), ("shop", link))
    paths = [*artifact.prefixes("shop"), *(one.path for one in (*artifact.trees("shop"), *artifact.dumps("shop")))]
    assert paths
    assert not [path for path in paths if path == link or path.startswith(f"{link}/")]


@pytest.mark.parametrize("link", LINKS)
def test_with_an_index_nothing_is_restored_or_drilled_through_a_link(host, link):
    linked(host, link, indexed=True)
    artifact = only(host)
    assert artifact.index is not None
    stack = host.found("shop")
    with pytest.raises(RefusedError, match="symbolic link"):
        restore_plan.targets(artifact, stack)
    with pytest.raises(RefusedError, match="symbolic link"):
        restore_plan.locate(artifact, "shop", "a", None)
    with pytest.raises(RefusedError, match="symbolic link"):
        drill_copy.place_data(host.settings, Source(artifact, artifact, NIGHT), "shop", host.root / "place")
    means = restoring.Means(host.settings, None, Undo(host.settings.state_dir / "undo", None), NOW, "r", Silent())
    request = restore.Request("shop", None, None, host.root / "to", overwrite=False, force=True, dry_run=False)
    with pytest.raises(RefusedError, match="symbolic link"):
        restore.run(request, means, [stack])
    assert "secret" not in "".join(one.read_text() for one in (host.root / "to").rglob("*") if one.is_file())


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("link", [*LINKS, ".dumps"])
def test_verify_reads_nothing_behind_a_link_and_finds_what_is_missing(host, link, indexed):
    linked(host, link, indexed=indexed)
    result = verify.run(settings=host.settings, store=host.store, now=NOW, progress=Silent())
    assert result.exit_code == ExitCode.DAMAGED
    assert "age.key" not in json.dumps(result.details, default=str)
    from stackward.steps.verification import check

    report = check(only(host), Silent(), ["shop", ".mounts/shop/up", ".dumps/shop"])
    assert report.damaged
    assert not [one for one in report.findings if one.fault == "surplus"]


@pytest.mark.parametrize("name", ["MANIFEST.sha256", "stackward.json"])
@pytest.mark.parametrize("what", ["a link", "a pipe", "a directory"])
def test_what_is_no_regular_file_is_not_read_for_one(host, name, what):
    path = backup(host)
    (path / name).unlink()
    if what == "a link":
        (path / name).symlink_to("/dev/zero")
    elif what == "a pipe":
        os.mkfifo(path / name)
    else:
        (path / name).mkdir()
    artifact = only(host)
    if name == "stackward.json":
        assert artifact.problem
        assert artifact.index is None
    result = verify.run(settings=host.settings, store=host.store, now=NOW, progress=Silent())
    assert result.outcome in (Outcome.FAILED, Outcome.WARN)
    find.run(settings=host.settings, name="a", now=NOW, progress=Silent())


def test_an_index_that_is_too_large_is_a_problem(host, monkeypatch):
    path = backup(host)
    with (path / "stackward.json").open("r+b") as file:
        file.truncate(records.LARGEST_BYTES + 1)
    assert "larger than" in only(host).problem


# ID files and checksums.


def identities(host):
    return [host.settings.backup_root / artifacts.ID_FILE, host.settings.state_dir / backup_root.REMEMBERED]


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("what", ["a pipe", "a link", "a huge file", "a device"])
def test_an_id_file_that_is_none_refuses_the_disk(host, number, what):
    backup_root.recognise(host.settings, NOW)
    path = identities(host)[number]
    content = path.read_bytes()
    path.unlink()
    if what == "a pipe":
        os.mkfifo(path)
    elif what == "a link":
        (host.root / "id").write_bytes(content)
        path.symlink_to(host.root / "id")
    elif what == "a device":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(content)
        with path.open("r+b") as file:
            file.truncate(1 << 40)
    with pytest.raises(RefusedError, match="cannot be read"):
        backup_root.recognise(host.settings, NOW)


@pytest.mark.parametrize("what", ["a pipe", "a link"])
def test_a_checksum_that_is_no_file_is_damage(host, what):
    tarball = host.settings.backup_root / "secrets-20261121_020000.tar.gz.age"
    tarball.write_bytes(b"x")
    beside = tarball.with_name(f"{tarball.name}.sha256")
    os.mkfifo(beside) if what == "a pipe" else beside.symlink_to("/dev/zero")
    result = verify.run(settings=host.settings, store=host.store, now=NOW, progress=Silent())
    assert result.exit_code == ExitCode.DAMAGED


def test_a_small_file_is_read_whole_and_a_larger_one_not_at_all(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert small_files.read(tmp_path / "a", 5, follow=False) == b"12345"
    with pytest.raises(OSError, match="larger than"):
        small_files.read(tmp_path / "a", 4, follow=False)


# What restores kept, and undo records.


def kept_document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FIXTURES / "kept-3-requirements.json").read_text())
    return found


RUN = "20261121T120000-abcdef"
HOME = f"/opt/docker/shop/{KEPT}/{RUN}"
KEPT_WRONG: list[tuple[tuple[str | int, ...], object]] = [
    (("run",), "../../etc/x"),
    (("run",), "another"),
    (("at",), "2026-11-21T12:00:00"),
    (("undone_at",), "soon"),
    (("subject",), 1),
    (("done",), "yes"),
    (("directories", 0), "/opt/docker/victim"),
    (("directories", 0), f"/opt/docker/{KEPT}/another"),
    (("directories", 0), f"opt/{KEPT}/{RUN}"),
    (("directories", 0), f"/opt/../docker/{KEPT}/{RUN}"),
    (("directories", 0), f"/{KEPT}/../{RUN}"),
    (("entries", 0, "place"), "opt/x"),
    (("entries", 0, "place"), "/opt/docker/../../etc"),
    (("entries", 0, "place"), "/opt/a\0b"),
    (("entries", 0, "kept"), "/opt/docker/victim"),
    (("entries", 0, "kept"), f"{HOME}/../x"),
    (("entries", 0, "kept"), HOME),
    (("entries", 0), None),
    (("entries",), {}),
]  # fmt: skip


@pytest.mark.parametrize(("where", "value"), KEPT_WRONG)
def test_a_kept_record_that_is_none_of_ours_is_kept_and_never_acted_on(tmp_path, where, value):
    document = kept_document()
    kept.parse(document, RUN)
    put(document, where, value)
    file = tmp_path / f"{RUN}.json"
    file.write_text(json.dumps(document))
    assert list(kept.records(tmp_path)) == []
    assert len(kept.left_alone(tmp_path)) == 1
    kept.expire(tmp_path, NOW + timedelta(days=1000))
    assert json.loads(file.read_text()) == document


@given(st.data())
def test_a_kept_record_is_refused_or_names_plain_paths(data):
    text = mutated(kept_document(), data.draw)
    try:
        found = kept.parse(records.parse(text), RUN)
    except ValueError:
        return
    assert found.run == RUN
    for path in (*found.directories, *(path for entry in found.entries for path in (entry.place, entry.kept))):
        assert os.path.normpath(path) == path
        assert path.startswith("/")
    for directory in found.directories:
        assert directory.endswith(f"/{KEPT}/{RUN}")
    for entry in found.entries:
        assert entry.kept.startswith(tuple(f"{directory}/" for directory in found.directories))
    NOW - datetime.fromisoformat(found.undone_at or found.at)


UNDO_WRONG: list[tuple[tuple[str | int, ...], object]] = [
    (("steps", 0, "subject"), "aside"),
    (("steps", 0, "subject"), "/"),
    (("steps", 0, "subject"), "/tmp/../no-such-place"),
    (("steps", 0, "detail"), ""),
    (("steps", 0, "detail"), "/a\0b"),
    (("steps", 0, "detail"), 1),
    (("steps", 0, "timeout_seconds"), "1"),
    (("steps", 0, "timeout_seconds"), 1e999),
    (("steps", 0), None),
    (("steps",), "rename"),
    (("reason",), None),
]  # fmt: skip


@pytest.mark.parametrize(("where", "value"), UNDO_WRONG)
def test_an_undo_record_that_is_none_of_ours_is_kept_and_no_step_of_it_taken(tmp_path, where, value):
    (tmp_path / "aside").write_text("precious")
    rename = {"do": "rename", "subject": str(tmp_path / "aside"), "detail": str(tmp_path / "place")}
    document = {"reason": "moving", "pid": 1, "steps": [rename, copy.deepcopy(rename)]}
    put(document, where, value)
    (tmp_path / "undo").mkdir()
    (tmp_path / "undo/1.json").write_text(json.dumps(document))
    undo = Undo(tmp_path / "undo", None)
    (message,) = undo.take_back_open()
    assert "cannot be read" in message
    assert len(undo.left_alone()) == 1
    assert undo.held_containers() == frozenset()
    assert not (tmp_path / "place").exists()


@given(st.data())
def test_an_undo_record_is_left_alone_or_understood_whole(tmp_path_factory, data):
    directory = tmp_path_factory.mktemp("undo")
    text = mutated(json.loads((FIXTURES / "undo-5-requirements.json").read_text()), data.draw)
    (directory / "1.json").write_text(text)
    undo = Undo(directory, None)
    assert undo.open_count() == 1
    undo.held_containers()
    for one in undo.left_alone():
        assert str(directory) in one.why
    assert (directory / "1.json").read_text() == text


def test_records_that_are_no_files_are_left_alone(tmp_path):
    os.mkfifo(tmp_path / "1.json")
    (tmp_path / "2.json").symlink_to("/dev/zero")
    assert len(kept.left_alone(tmp_path)) == 2
