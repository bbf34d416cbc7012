"""What can be written into BACKUP_ROOT chooses no path outside of it: an ordinary backup, a restore and a drill heed it not."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from btrfs.test_backup_data import Host
from stackward.core.model import Outcome
from stackward.core.progress import Silent
from stackward.jobs import verify

pytestmark = pytest.mark.btrfs
NIGHT = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)
TODAY = "data-2026-11-21"


@pytest.fixture(params=["btrfs", "plain"])
def host(request: pytest.FixtureRequest, tmp_path: Path, volume: Path) -> Host:
    root = request.getfixturevalue("btrfs_root") if request.param == "btrfs" else tmp_path / "backup"
    root.mkdir(exist_ok=True)
    made = Host(tmp_path, root, volume)
    for name in ("shop", "wiki"):
        made.stack(name, tmp_path / "docker" / name / "data", tmp_path / "docker" / name / "uploads")
        (tmp_path / "docker" / name / "data/file").write_text(name)
        (tmp_path / "docker" / name / "uploads/file").write_text(name)
    assert made.back_up(NIGHT).outcome is Outcome.OK
    return made


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Another stack's data, which nobody backs up."""
    (tmp_path / "docker/victim/uploads").mkdir(parents=True)
    (tmp_path / "docker/victim/uploads/precious").write_text("precious")
    (tmp_path / "docker/victim/precious").write_text("precious")
    return tmp_path / "docker/victim"


def assert_untouched(victim: Path) -> None:
    assert (victim / "precious").read_text() == "precious"
    assert (victim / "uploads/precious").read_text() == "precious"
    assert sorted(os.listdir(victim)) == ["precious", "uploads"]
    assert os.listdir(victim / "uploads") == ["precious"]


def writable(host: Host, name: str = TODAY) -> Path:
    """Today's backup, as somebody finds it who may write to the share."""
    from stackward.tools import btrfs, filesystem

    backup = host.settings.backup_root / name
    if filesystem.is_subvolume(backup):
        btrfs.set_read_only(backup, read_only=False)
    return backup


def forge(host: Host, path: str, stack: str = "shop", tree: int = 1) -> None:
    backup = writable(host)
    document = json.loads((backup / "stackward.json").read_text())
    document["stacks"][stack]["trees"][tree]["path"] = path
    (backup / "stackward.json").write_text(json.dumps(document))


def assert_a_backup_goes_on(host: Host) -> None:
    done = host.back_up(NIGHT + timedelta(hours=2))
    assert done.outcome is not Outcome.FAILED, done
    backup = host.settings.backup_root / TODAY
    for name in ("shop", "wiki"):
        assert (backup / name / "file").read_text() == name
        assert (backup / ".mounts" / name / "uploads/file").read_text() == name


@pytest.mark.parametrize("how", ["absolute", "upwards", "another's", "through a name"])
def test_an_index_that_names_a_path_outside_makes_a_backup_delete_nothing(host: Host, victim: Path, how: str) -> None:
    upwards = os.path.relpath(victim, host.settings.backup_root / TODAY)
    path = {
        "absolute": str(victim),
        "upwards": upwards,
        "another's": ".mounts/wiki/uploads",
        "through a name": f".mounts/shop/{upwards}/..",
    }[how]
    forge(host, path)
    assert_a_backup_goes_on(host)
    assert_untouched(victim)


@pytest.mark.parametrize("stack", ["/", "..", ".mounts", "a/b"])
def test_a_stacks_name_in_an_index_leads_nowhere(host: Host, victim: Path, stack: str) -> None:
    backup = writable(host)
    document = json.loads((backup / "stackward.json").read_text())
    name = str(victim) if stack == "/" else stack
    document["stacks"][name] = document["stacks"].pop("shop") | {
        "stack": name,
        "dumps": [{"service": "db", "kind": "postgres", "path": f".dumps/{name}/x"}],
    }
    (backup / "stackward.json").write_text(json.dumps(document))
    assert_a_backup_goes_on(host)
    assert_untouched(victim)


@pytest.mark.parametrize("indexed", [True, False], ids=["with its index", "without an index"])
@pytest.mark.parametrize("link", [".mounts", ".mounts/shop", ".mounts/shop/uploads", "shop", ".dumps", ".dumps/shop"])
def test_a_link_in_a_backup_makes_a_backup_delete_or_write_nothing_behind_it(
    host: Host, victim: Path, link: str, indexed: bool
) -> None:
    backup = writable(host)
    place = backup / link
    if place.exists():
        shutil.rmtree(place)
    place.parent.mkdir(exist_ok=True)
    # What the name would lead to, were it followed.
    to = {".mounts": victim.parent, ".dumps": victim.parent}.get(link, victim)
    if link in (".mounts", ".dumps"):
        (victim.parent / "aside").mkdir()
        os.rename(victim, victim.parent / "aside/victim")
        to = victim.parent / "aside"
        os.rename(to / "victim", to / "shop")
        victim = to / "shop"
    place.symlink_to(to)
    if not indexed:
        (backup / "stackward.json").unlink()
    shop = host.stacks.pop("shop")
    host.back_up(NIGHT + timedelta(hours=1))  # the day's part of the shop is carried
    assert_untouched(victim)
    host.stacks["shop"] = shop
    host.back_up(NIGHT + timedelta(hours=2))
    assert_untouched(victim)
    assert (host.settings.backup_root / TODAY / "shop/file").read_text() == "shop"


@pytest.mark.parametrize("name", [".MANIFEST.sha256.tmp", "MANIFEST.sha256", "stackward.json"])
def test_a_link_under_a_name_of_ours_is_not_written_through(host: Host, victim: Path, name: str) -> None:
    backup = writable(host)
    (backup / name).unlink(missing_ok=True)
    (backup / name).symlink_to(victim / "precious")
    host.back_up(NIGHT + timedelta(hours=2))
    assert_untouched(victim)


def test_a_manifest_that_names_files_outside_names_none_in_a_report_or_a_later_backup(host: Host, victim: Path) -> None:
    backup = writable(host)
    outside = os.path.relpath(victim / "precious", backup)
    lines = (backup / "MANIFEST.sha256").read_text().splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if "  wiki/file" in line)
    lines[at + 1 : at + 1] = [f"{'0' * 64}  {outside}\n", f"{'0' * 64}  {victim}/precious\n"]
    (backup / "MANIFEST.sha256").write_text("".join(lines))
    host.back_up(NIGHT + timedelta(hours=1), "shop")
    assert "precious" not in (host.settings.backup_root / TODAY / "MANIFEST.sha256").read_text()
    host.back_up(NIGHT + timedelta(days=1))
    found = verify.run(
        settings=host.settings, store=host.store, everything=True, now=NIGHT + timedelta(days=2), progress=Silent()
    )
    named = [finding["path"] for report in found.details["artifacts"] for finding in report["findings"]]
    assert named
    assert not [path for path in named if "precious" in path]
    assert_untouched(victim)
