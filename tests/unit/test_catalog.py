import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from stackward.config import Settings
from stackward.core.artifacts import ArtifactKind
from stackward.core.errors import RefusedError, StackwardError
from stackward.core.index import Index, StackEntry, TreeEntry
from stackward.steps import catalog
from stackward.steps.restore import restore_plan

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "backups").mkdir()
    return Settings(backup_root=tmp_path / "backups", zone=BERLIN)


def entry(stack, at, *paths):
    trees = tuple(TreeEntry(p, "data", p, f"/x/{p}", f"/x/{p}", None, snapshot=False, files=2, bytes=10) for p in paths)
    return StackEntry(stack=stack, project=stack, at=at, run="r1", trees=trees)


def day(root: Path, name: str, created_at: str, *entries) -> Path:
    path = root / name
    path.mkdir()
    index = Index(name[5:15], created_at, "host", {e.stack: e for e in entries})
    (path / "stackward.json").write_text(index.to_json())
    return path


def test_lists_finished_artifacts_only_newest_first(settings):
    root = settings.backup_root
    day(root, "data-2026-11-02", "2026-11-02T01:05:00+00:00", entry("shop", "2026-11-02T01:01:00+00:00", "shop"))
    (root / "configs-20261102_020000.tar.gz").write_bytes(b"12345")
    (root / "configs-20261102_020000.tar.gz.sha256").write_text("…")
    (root / "configs-20261103_020000.tar.gz").write_bytes(b"")
    (root / ".incoming-data-2026-11-03").mkdir()
    (root / "data-2026-13-40").mkdir()
    (root / "data-2026-11-05").write_text("not a directory")
    (root / "configs-20261105_020000.tar.gz").mkdir()
    os.symlink("data-2026-11-02", root / "data-2026-11-06")

    listed = catalog.catalog(settings, NOW)

    assert [a.name.name for a in listed] == [
        "configs-20261103_020000.tar.gz",
        "data-2026-11-02",
        "configs-20261102_020000.tar.gz",
    ]
    assert [a.size_bytes for a in listed] == [0, 10, 5]


def test_what_a_clock_that_was_ahead_has_dated_is_not_the_newest(settings):
    root = settings.backup_root
    for date in ("2026-11-02", "2026-11-03", "2027-05-01"):
        day(root, f"data-{date}", f"{date}T01:05:00+00:00", entry("shop", f"{date}T01:01:00+00:00", "shop"))

    def listed(now):
        return [a.name.name.removeprefix("data-") for a in catalog.catalog(settings, now)]

    assert listed(datetime(2026, 11, 3, 3, tzinfo=UTC)) == ["2026-11-03", "2026-11-02", "2027-05-01"]
    assert listed(datetime(2026, 11, 3, 1, tzinfo=UTC))[0] == "2026-11-03"  # minutes are nothing
    assert listed(datetime(2026, 11, 2, 23, tzinfo=UTC))[0] == "2026-11-02"
    assert listed(datetime(2027, 5, 2, tzinfo=UTC)) == ["2027-05-01", "2026-11-03", "2026-11-02"]
    artifacts = catalog.catalog(settings, datetime(2026, 11, 3, 3, tzinfo=UTC))
    assert restore_plan.choose(artifacts, "shop", None).name.name == "data-2026-11-03"


def test_a_replaced_day_is_listed_as_such_after_the_one_that_replaced_it(settings):
    same = "2026-11-02T01:05:00+00:00"
    day(settings.backup_root, "data-2026-11-02.replaced-20261102_120000", same, entry("shop", same, "shop"))
    day(settings.backup_root, "data-2026-11-02", same, entry("shop", same, "shop"))

    listed = catalog.catalog(settings, NOW)

    assert [a.replaced for a in listed] == [False, True]
    assert catalog.newest(listed, ArtifactKind.DATA) is listed[0]


def test_the_seeds_data_backup_holds_what_its_directories_are_called(settings):
    for name in ("shop", "My.App", ".mounts/wiki/files"):
        (settings.backup_root / "data-2026-11-02" / name).mkdir(parents=True)
    (settings.backup_root / "data-2026-11-02" / "MANIFEST.sha256").write_text("")

    (seed,) = catalog.catalog(settings, NOW)

    assert seed.stacks == ("My.App", "shop", "wiki")
    assert (seed.index, seed.size_bytes, seed.problem) == (None, None, "")
    assert seed.prefixes("shop") == ("shop",)
    assert seed.prefixes("wiki") == (".mounts/wiki",)
    assert seed.at("shop") == datetime(2026, 11, 2, tzinfo=BERLIN)


def test_an_index_that_cannot_be_read_is_a_problem_and_no_crash(settings):
    path = day(settings.backup_root, "data-2026-11-02", "2026-11-02T01:05:00+00:00")
    (path / "shop").mkdir()
    for broken in (b"{", b"\xff", b"[]", json.dumps({"format": 99}).encode()):
        (path / "stackward.json").write_bytes(broken)

        (listed,) = catalog.catalog(settings, NOW)

        assert listed.problem
        assert listed.stacks == ("shop",)


def test_names_that_are_not_utf_8_survive_the_index(settings):
    odd = os.fsdecode(b"caf\xe9")
    day(settings.backup_root, "data-2026-11-02", "2026-11-02T01:05:00+00:00", entry(odd, "2026-11-02T01:00:00Z", odd))

    (listed,) = catalog.catalog(settings, NOW)

    assert listed.stacks == (odd,)
    assert listed.prefixes(odd) == (odd,)
    assert listed.at(odd) == datetime(2026, 11, 2, 1, 0, tzinfo=UTC)


def test_a_backup_is_found_by_its_name_or_its_date_and_else_the_nearest_are_named(settings):
    day(settings.backup_root, "data-2026-11-02", "2026-11-02T01:05:00+00:00")
    listed = catalog.catalog(settings, NOW)

    assert catalog.find(listed, "2026-11-02") is catalog.find(listed, "data-2026-11-02") is listed[0]
    with pytest.raises(StackwardError, match="nearest: data-2026-11-02"):
        catalog.find(listed, "data-2026-11-03")


def test_a_missing_root_is_refused(settings):
    with pytest.raises(RefusedError, match="is the disk mounted"):
        catalog.catalog(replace(settings, backup_root=settings.backup_root / "gone"), NOW)
