import os
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from stackward.config import Settings
from stackward.core.errors import SettingsError
from stackward.core.progress import Silent
from stackward.jobs import find
from unit.backups import config_backup, data_backup, seal, stack_entry, tree, write_files

NOW = datetime(2026, 11, 3, 2, 30, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path):
    settings = Settings(backup_root=tmp_path)
    data_backup(tmp_path, "data-2026-11-02", NOW - timedelta(days=1), {"shop": {"docs/Bill.pdf": b"1", "x": b"1"}})
    data_backup(tmp_path, "data-2026-11-03", NOW, {"shop": {"docs/Bill.pdf": b"2"}, "wiki": {"bill": b"3"}})
    return settings


def run(settings, name, **more):
    result = find.run(settings=settings, name=name, now=NOW, progress=Silent(), **more)
    return {(one["stack"], one["path"]): one for one in result.details["found"]}


def test_a_part_of_a_name_is_found_in_every_backup_newest_first(settings):
    found = run(settings, "bill")

    assert set(found) == {("shop", "data/docs/Bill.pdf"), ("wiki", "data/bill")}
    bill = found["shop", "data/docs/Bill.pdf"]
    assert (bill["backups"], bill["versions"]) == (["data-2026-11-03", "data-2026-11-02"], 2)
    assert bill["restore"] == "stackward restore shop:data/docs/Bill.pdf --from data-2026-11-03"


def test_what_only_a_replaced_backup_holds_is_found(settings, tmp_path):
    replaced = "data-2026-11-03.replaced-20261103_120000"
    data_backup(tmp_path, replaced, NOW, {"shop": {"gone": b"4"}})
    assert run(settings, "gone")["shop", "data/gone"]["backups"] == [replaced]


def test_a_directory_is_found_once_as_itself(settings):
    assert set(run(settings, "docs")) == {("shop", "data/docs")}


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("*.pdf", {"data/docs/Bill.pdf"}),
        ("b?ll", {"data/bill"}),
        ("docs/bill", {"data/docs/Bill.pdf"}),
        ("*ocs/*.pdf", {"data/docs/Bill.pdf"}),
        ("[x]", {"data/x"}),
        ("shop", set()),
        ("nothing", set()),
    ],
)
def test_patterns_and_paths(settings, name, paths):
    assert {path for _, path in run(settings, name)} == paths


def test_only_one_stack(settings):
    assert set(run(settings, "bill", stack="wiki")) == {("wiki", "data/bill")}


def test_other_trees_dumps_and_the_configuration_are_looked_through_too(settings):
    root = settings.backup_root / "data-2026-11-04"
    write_files(root, {".mounts/shop/uploads/cat.jpg": b"1", ".dumps/shop/cat.sql": b"2"})
    uploads = tree(".mounts/shop/uploads", kind="bind", mount_name="uploads")
    seal(root, NOW, stack_entry("shop", NOW, uploads))
    config_backup(settings.backup_root, "configs-20261103_020000.tar.gz", {"./shop/cat.conf": b"x"})

    found = run(settings, "cat")

    assert set(found) == {("shop", "uploads/cat.jpg"), ("shop", ".dumps/cat.sql"), ("", "shop/cat.conf")}
    assert found["", "shop/cat.conf"]["restore"].startswith("stackward restore config shop --from configs-")


def test_a_backup_without_checksums_is_looked_through_by_its_files(settings):
    write_files(settings.backup_root / "data-2026-11-01" / "old", {b"caf\xe9": b"1"})

    assert set(run(settings, "caf")) == {("old", "data/caf\\xe9")}


def test_a_backup_that_cannot_be_read_is_a_warning_and_the_others_are_still_found(settings):
    (settings.backup_root / "configs-20261103_020000.tar.gz").write_bytes(b"no archive")

    result = find.run(settings=settings, name="bill", now=NOW, progress=Silent())

    assert len(result.details["found"]) == 2
    assert "configs-20261103_020000.tar.gz could not be looked through" in result.reasons[0]


def test_nothing_to_look_for_is_an_error(settings):
    with pytest.raises(SettingsError):
        run(settings, "/")


@pytest.mark.parametrize("name", [b"it's `id` $HOME", b"new\nline", b"\xff\xfe it's\\", "gr\u00fcn \x7f".encode()])
def test_the_way_back_can_be_pasted_into_a_shell_whatever_the_name(tmp_path, name):
    data_backup(tmp_path, "data-2026-11-03", NOW, {"My App": {os.fsdecode(name): b"1"}})
    (one,) = run(Settings(backup_root=tmp_path), "*").values()
    words = subprocess.run(["bash", "-c", f"printf '%s\\0' {one['restore']}"], capture_output=True, check=True).stdout
    assert words.split(b"\0")[:3] == [b"stackward", b"restore", b"My App:data/" + name]


def test_what_the_names_of_a_share_say_to_a_terminal_is_not_said(settings, tmp_path):
    config_backup(
        tmp_path, "configs-20261103_030000.tar.gz", {"shop/a\x1b[31m\nforged line": b"", "shop/back\\slash": b""}
    )
    data_backup(tmp_path, "data-2026-11-04", NOW, {"shop": {b"a\x1b]0;x\x07\nforged": b""}})
    result = find.run(settings=settings, name="forged", now=NOW, progress=Silent())
    assert {one["path"] for one in result.details["found"]} == {
        "shop/a\\x1b[31m\\nforged line",
        "data/a\\x1b]0;x\\x07\\nforged",
    }
    assert str(result.details).isprintable()
    assert ("", "shop/back\\slash") in run(settings, "back*")


def test_a_share_s_links_are_not_followed(settings, tmp_path):
    (tmp_path / "away").mkdir()
    (tmp_path / "away/secret-name").write_text("")
    seed = tmp_path / "data-2026-11-01"
    (seed / "shop").mkdir(parents=True)
    (seed / "shop/link").symlink_to(tmp_path / "away")
    (seed / "other").symlink_to(tmp_path / "away")
    assert run(settings, "secret") == {}
    os.mkfifo(seed / "MANIFEST.sha256")
    assert run(settings, "secret") == {}
