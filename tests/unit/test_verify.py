import os
import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostile import flipped_for_link, make_victim, watched
from stackward.config import Settings
from stackward.core.artifacts import ArtifactKind, ArtifactName
from stackward.core.errors import ExitCode, StackwardError
from stackward.core.model import Outcome
from stackward.core.progress import Silent
from stackward.jobs import verify
from stackward.steps import catalog
from stackward.steps.catalog import Artifact
from stackward.steps.verification import Fault, check
from stackward.store import Store, is_damaged
from stackward.tools.locks import Locks
from unit.backups import (
    config_backup,
    data_backup,
    seal,
    stack_entry,
    tree,
    write_checksum,
    write_files,
    write_manifest,
)

NOW = datetime(2026, 11, 3, 2, 30, tzinfo=UTC)
MADE = NOW - timedelta(minutes=20)


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "backups").mkdir()
    return Settings(backup_root=tmp_path / "backups", state_dir=tmp_path / "state")


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "store.sqlite", now=NOW, locks=Locks(tmp_path / "locks")) as opened:
        yield opened


def run(settings, store, *names, now=NOW, everything=True):
    return verify.run(settings=settings, store=store, names=names, everything=everything, now=now, progress=Silent())


def faults(result):
    return {(f["fault"], f["path"]) for a in result.details["artifacts"] for f in a["findings"]}


ODD = {
    b"plain": b"x",
    b"new\nline": b"1",
    b"back\\slash": b"2",
    b"-leading": b"3",
    b"caf\xe9": b"4",
    b"a.txt": b"5",
    b"a/b": b"6",
    b"a-b/c": b"7",
    b"empty": b"",
}


def test_good_backups_of_every_kind_are_good_and_recorded_so(settings, store):
    data_backup(settings.backup_root, "data-2026-11-03", MADE, {"shop": ODD, "My.App": {"f": b"x"}})
    config_backup(settings.backup_root, "configs-20261103_020000.tar.gz", {"shop/compose.yaml": b"x"})
    capsule = settings.backup_root / "secrets-20261103_020000.tar.gz.age"
    capsule.write_bytes(b"age-encryption.org/v1")
    write_checksum(capsule)

    result = run(settings, store)

    assert (result.outcome, result.exit_code, result.reasons) == (Outcome.OK, 0, ())
    assert {s.stack: s.outcome for s in result.stacks} == {"shop": Outcome.OK, "My.App": Outcome.OK}
    assert {name: v.outcome for name, v in store.verified().items()} == dict.fromkeys(result.artifacts, Outcome.OK)
    assert len(result.artifacts) == 3


def test_each_damaged_missing_and_surplus_file_is_named_and_its_stack_fails(settings, store):
    path = data_backup(settings.backup_root, "data-2026-11-03", MADE, {"shop": ODD, "wiki": {"f": b"x"}})
    shop = os.fsencode(path) + b"/shop/"
    with open(shop + b"new\nline", "wb") as file:
        file.write(b"9")
    os.unlink(shop + b"caf\xe9")
    os.unlink(shop + b"a/b")
    os.symlink(b"plain", shop + b"a/b")
    write_files(path / "shop", {b"a/zz": b""})

    result = run(settings, store)

    assert faults(result) == {
        ("damaged", "shop/new\\nline"),
        ("missing", "shop/caf\\xe9"),
        ("missing", "shop/a/b"),
        ("surplus", "shop/a/zz"),
    }
    assert (result.outcome, result.exit_code) == (Outcome.FAILED, ExitCode.DAMAGED)
    assert result.reasons == ("data-2026-11-03: 1 damaged, 2 missing, 1 surplus",)
    assert {s.stack: s.outcome for s in result.stacks} == {"shop": Outcome.FAILED, "wiki": Outcome.OK}
    said = store.verified()["data-2026-11-03"]
    assert (said.damaged, is_damaged(said), is_damaged(said, "shop"), is_damaged(said, "wiki")) == (
        4,
        True,
        True,
        False,
    )


def test_a_tree_without_files_is_missed_too(settings, store):
    path = settings.backup_root / "data-2026-11-03"
    (path / "shop").mkdir(parents=True)
    seal(path, MADE, stack_entry("shop", MADE, tree("shop")))
    assert run(settings, store).outcome is Outcome.OK

    (path / "shop").rmdir()

    assert faults(run(settings, store)) == {("missing", "shop")}


def test_a_manifest_with_a_line_that_is_none_is_damage_and_the_rest_is_still_compared(settings, store):
    path = data_backup(settings.backup_root, "data-2026-11-03", MADE, {"shop": {"a": b"1", "b": b"2"}})
    lines = (path / "MANIFEST.sha256").read_bytes().splitlines(keepends=True)
    (path / "MANIFEST.sha256").write_bytes(b"rubbish\n" + b"".join(lines[1:]))
    (path / "shop" / "b").write_bytes(b"9")

    assert faults(run(settings, store)) == {
        ("damaged", "MANIFEST.sha256"),
        ("surplus", "shop/a"),
        ("damaged", "shop/b"),
    }
    assert is_damaged(store.verified()["data-2026-11-03"], "some other stack")


@pytest.mark.parametrize("prefix", [b"", b"./", "absolute"])
def test_the_seeds_manifest_may_be_in_any_order_and_name_paths_in_its_own_way(settings, store, prefix):
    path = settings.backup_root / "data-2026-11-03"
    write_files(path / "shop", ODD)
    write_manifest(path, os.fsencode(path) + b"/" if prefix == "absolute" else prefix)
    lines = (path / "MANIFEST.sha256").read_bytes().splitlines(keepends=True)
    random.Random(1).shuffle(lines)
    (path / "MANIFEST.sha256").write_bytes(b"".join(lines))
    assert run(settings, store).outcome is Outcome.OK

    (path / "shop" / "plain").unlink()

    assert faults(run(settings, store)) == {("missing", "shop/plain")}


def test_backups_without_checksums_are_a_warning_not_a_success(settings, store):
    write_files(settings.backup_root / "data-2026-11-03" / "shop", {"f": b"x"})
    config_backup(settings.backup_root, "configs-20261103_020000.tar.gz", {"a": b"x"}, checksum=False)

    result = run(settings, store)

    assert (result.outcome, result.exit_code) == (Outcome.WARN, ExitCode.OK)
    assert any("cannot be verified" in reason for reason in result.reasons)
    assert [s.outcome for s in result.stacks] == [Outcome.WARN]


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


def test_one_flipped_bit_of_a_tarball_is_found_by_its_checksum(settings, store):
    path = config_backup(
        settings.backup_root, "configs-20261103_020000.tar.gz", {"a": random.Random(1).randbytes(5000)}
    )
    flip(path, 2500)

    result = run(settings, store)

    assert result.exit_code == ExitCode.DAMAGED
    assert faults(result) == {("damaged", path.name)}


@pytest.mark.parametrize("damage", [lambda p: flip(p, -6), lambda p: os.truncate(p, p.stat().st_size - 100)])
def test_a_tarball_whose_checksum_was_taken_too_late_is_still_read_to_its_end(settings, store, damage):
    path = config_backup(
        settings.backup_root, "configs-20261103_020000.tar.gz", {"a": random.Random(1).randbytes(5000)}
    )
    damage(path)
    write_checksum(path)

    result = run(settings, store)

    assert "cannot be read to its end" in result.details["artifacts"][0]["findings"][0]["why"]


def test_only_what_is_new_or_known_to_be_damaged_is_read_unless_everything_is_asked_for(settings, store):
    good = data_backup(settings.backup_root, "data-2026-11-02", MADE - timedelta(days=1), {"shop": {"f": b"x"}})
    bad = data_backup(settings.backup_root, "data-2026-11-03", MADE, {"shop": {"f": b"x"}})
    (bad / "shop" / "f").write_bytes(b"9")
    run(settings, store)

    assert run(settings, store, everything=False).artifacts == (bad.name,)
    assert run(settings, store, everything=True).artifacts == (bad.name, good.name)
    assert run(settings, store, "2026-11-02", everything=False).artifacts == (good.name,)


def test_a_day_that_was_made_again_under_its_name_is_new(settings, store):
    path = data_backup(settings.backup_root, "data-2026-11-03", MADE, {"shop": {"f": b"x"}})
    run(settings, store)
    later = NOW + timedelta(hours=1)
    seal(path, later, stack_entry("shop", later, tree("shop")))

    assert run(settings, store, now=later, everything=False).artifacts == (path.name,)
    assert run(settings, store, now=later, everything=False).artifacts == ()


def test_a_name_that_is_no_backup_is_an_error_and_nothing_is_read(settings, store):
    with pytest.raises(StackwardError, match="no backup called"):
        run(settings, store, "2026-11-09")


@given(
    st.dictionaries(
        st.lists(
            st.binary(min_size=1, max_size=3).filter(lambda b: b not in (b".", b"..") and not set(b) & {0, 47}),
            min_size=1,
            max_size=3,
        ).map(b"/".join),
        st.binary(max_size=3),
        max_size=8,
    ),
    st.data(),
)
def test_whatever_is_changed_is_found_and_nothing_else(tmp_path_factory, files, data):
    files = {p: c for p, c in files.items() if not any(o.startswith(p + b"/") for o in files)}
    root = tmp_path_factory.mktemp("day")
    write_files(root, {b"shop/" + path: content for path, content in files.items()})
    write_manifest(root)
    expected = set()
    for path in files:
        full = os.fsencode(root) + b"/shop/" + path
        act = data.draw(st.sampled_from(["keep", "change", "remove", "add"]))
        if act == "change":
            with open(full, "ab") as file:
                file.write(b"!")
            expected.add((Fault.DAMAGED, b"shop/" + path))
        elif act == "remove":
            os.unlink(full)
            expected.add((Fault.MISSING, b"shop/" + path))
        elif act == "add":
            with open(full + b"\xff\n+", "wb") as file:
                file.write(b"")
            expected.add((Fault.SURPLUS, b"shop/" + path + b"\xff\n+"))

    artifact = Artifact(ArtifactName(NOW, ArtifactKind.DATA, root.name), root, NOW, stacks=("shop",))

    assert {(f.fault, os.fsencode(f.path)) for f in check(artifact, Silent()).findings} == expected


@pytest.mark.parametrize("target", ["/", "x" * 300, "nowhere"])
def test_a_link_that_is_asked_for_is_not_followed(settings, store, target):
    path = data_backup(settings.backup_root, "data-2026-11-03", MADE, {"shop": {"a": b"1"}})
    os.symlink(target, path / "shop" / "link")
    [artifact] = catalog.catalog(settings, NOW)
    assert check(artifact, Silent(), ["shop/link"]).damaged == 0


def test_what_a_link_on_a_share_leads_to_meanwhile_is_not_read(settings, tmp_path):
    files = {f"d/{number}": b"x" * 1000 for number in range(50)}
    path = data_backup(settings.backup_root, "data-2026-11-03", MADE, {"shop": files})
    victim = make_victim(tmp_path / "victim", [str(number) for number in range(50)], "x" * 1000)
    [artifact] = catalog.catalog(settings, NOW)
    with watched(victim) as opened, flipped_for_link(path / "shop/d", victim):
        for _ in range(40):
            check(artifact, Silent())
    assert opened == []


@pytest.mark.parametrize("name", ["stackward.json", "MANIFEST.sha256", "shop/file"])
@pytest.mark.parametrize("becomes", ["fifo", "link", "device"])
def test_a_file_on_a_share_that_is_none_is_damage_and_not_waited_for(settings, tmp_path, name, becomes):
    path = data_backup(settings.backup_root, "data-2026-11-03", MADE, {"shop": {"file": b"1"}})
    (path / name).rename(tmp_path / "away")
    if becomes == "fifo":
        os.mkfifo(path / name)
    elif becomes == "link":
        (path / name).symlink_to(tmp_path / "away")
    else:
        os.mknod(path / name, 0o666 | 0o20000, os.makedev(1, 5))  # /dev/zero has no end
    [artifact] = catalog.catalog(settings, NOW)
    report = check(artifact, Silent())
    if name == "stackward.json":
        assert report.damaged or artifact.problem
    else:
        assert report.damaged or report.warnings


@pytest.mark.parametrize("becomes", ["fifo", "link"])
@pytest.mark.parametrize("name", ["configs-20261103_020000.tar.gz", "configs-20261103_020000.tar.gz.sha256"])
def test_a_tarball_that_is_none_is_not_waited_for(settings, tmp_path, name, becomes):
    config_backup(settings.backup_root, "configs-20261103_020000.tar.gz", {"shop/compose.yaml": b"x"})
    [artifact] = catalog.catalog(settings, NOW)
    (settings.backup_root / name).rename(tmp_path / "away")
    if becomes == "fifo":
        os.mkfifo(settings.backup_root / name)
    else:
        (settings.backup_root / name).symlink_to(tmp_path / "away")
    report = check(artifact, Silent())
    assert report.damaged or report.warnings


def test_a_backup_root_behind_a_link_of_the_administrator_is_read(settings, tmp_path):
    data_backup(settings.backup_root, "data-2026-11-03", MADE, {"shop": {"file": b"1"}})
    config_backup(settings.backup_root, "configs-20261103_020000.tar.gz", {"shop/compose.yaml": b"x"})
    (tmp_path / "link").symlink_to(settings.backup_root)
    for artifact in catalog.catalog(Settings(backup_root=tmp_path / "link"), NOW):
        report = check(artifact, Silent())
        assert (report.outcome, report.files > 0) == (Outcome.OK, True)
