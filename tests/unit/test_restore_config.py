from __future__ import annotations

import gzip
import io
import os
import shutil
import stat
import subprocess
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from stackward.config import Settings
from stackward.core.errors import RefusedError, StackwardError
from stackward.core.model import Container, Mount, Outcome, Policy, Stack
from stackward.core.progress import Silent
from stackward.jobs import backup_config, restore_config
from stackward.jobs.restore_config import Request
from stackward.steps.restore import kept
from stackward.steps.undo import Undo
from stackward.tools import age

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)
LATER = NOW + timedelta(days=2)
ODD = os.fsdecode(b"odd\n\\ \xe9")


class Host:
    """A DOCKER_ROOT with the stacks `shop` and `blog`, and one backup of it with secrets."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.root = place / "docker"
        self.state = place / "state"
        self.etc = place / "etc"
        self.etc.mkdir()
        (place / "backup").mkdir()
        self.settings = Settings(
            docker_root=self.root,
            backup_root=place / "backup",
            state_dir=self.state,
            config_dir=self.etc,
            zone=ZoneInfo("UTC"),
            minimum_free_bytes=0,
            age_recipients=(age.generate_key(self.etc / "age.key"),),
        )
        self.runs = 0
        self.put("shop/compose.yaml", "services: {}\n")
        self.put("shop/.env", "PASSWORD=hunter2\n")
        self.put(f"shop/conf/{ODD}", "odd")
        self.put("blog/compose.yaml", "services: {}\n")
        os.chmod(self.root / "shop" / "conf", 0o750)
        os.chown(self.put("shop/conf/owned", "mine"), 1234, 4321)
        self.backed_up = self.back_up()

    def put(self, path: str, text: str) -> Path:
        full = self.root / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_text(text)
        return full

    def back_up(self, now: datetime = NOW) -> list[str]:
        stacks = [
            Stack(name=name, directory=self.root / name, project=name, opted_in=True, policy=Policy(backup=True))
            for name in ("shop", "blog")
        ]
        result = backup_config.run(settings=self.settings, discovery_stacks=stacks, now=now, progress=Silent())
        return list(result.artifacts)

    def restore(self, *, now: datetime = NOW, crash_point: str = "", **fields: object):
        self.runs += 1
        from dataclasses import replace

        return restore_config.run(
            Request(**fields),
            settings=replace(self.settings, crash_point=crash_point),
            undo=Undo(self.state / "undo", None),
            now=now,
            run_id=f"run-{self.runs}",
            progress=Silent(),
        )

    def text(self, path: str) -> str:
        return (self.root / path).read_text()

    def tree(self) -> dict[str, tuple[int, int, int, bytes]]:
        """Everything below DOCKER_ROOT but what a restore, or taking it back, put aside."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            if ".stackward-kept" not in path.parts and not path.name.endswith(".stackward-undone"):
                status = path.lstat()
                content = path.read_bytes() if path.is_file() else b""
                found[str(path)] = (status.st_mode, status.st_uid, status.st_gid, content)
        return found


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_everything_comes_back_on_an_empty_host(host):
    before = host.tree()
    shutil.rmtree(host.root)
    result = host.restore(secrets=True)
    assert host.tree() == before
    assert result.outcome is Outcome.OK
    assert result.details["changed_stacks"] == ["blog", "shop"]
    assert sorted(result.details["new"]) == sorted(set(result.details["new"]))


def test_changed_and_missing_files_come_back_and_others_stay(host):
    before = host.tree()
    host.put("shop/compose.yaml", "broken")
    host.put("shop/.env", "PASSWORD=lost")
    (host.root / "shop" / "conf" / "owned").unlink()
    mine = host.put("shop/mine.txt", "not in the backup")
    result = host.restore(secrets=True)
    assert mine.read_text() == "not in the backup"
    mine.unlink()
    assert host.tree() == before
    assert result.details["new"] == ["shop/conf/owned"]
    assert result.details["changed"] == ["shop/compose.yaml", "shop/.env"]


def test_an_owner_or_a_mode_is_a_change(host):
    os.chown(host.root / "shop" / "conf" / "owned", 0, 0)
    os.chmod(host.root / "shop" / "compose.yaml", 0o600)
    result = host.restore()
    assert sorted(result.details["changed"]) == ["shop/compose.yaml", "shop/conf/owned"]
    assert (host.root / "shop" / "conf" / "owned").stat().st_uid == 1234


def test_without_a_difference_nothing_is_written(host):
    before = os.stat(host.root / "shop" / "compose.yaml").st_ino
    result = host.restore(secrets=True)
    assert os.stat(host.root / "shop" / "compose.yaml").st_ino == before
    assert (result.details["new"], result.details["changed"]) == ([], [])
    assert not (host.root / ".stackward-kept").exists()


def test_a_dry_run_shows_the_changes_and_makes_none(host):
    host.put("shop/compose.yaml", "broken")
    (host.root / "blog" / "compose.yaml").unlink()
    before = host.tree()
    result = host.restore(dry_run=True)
    assert (result.details["new"], result.details["changed"]) == (["blog/compose.yaml"], ["shop/compose.yaml"])
    assert host.tree() == before
    assert not host.state.joinpath("kept").exists()


def test_only_the_stacks_that_were_named(host):
    host.put("shop/compose.yaml", "broken")
    host.put("blog/compose.yaml", "broken")
    host.restore(stacks=("blog",))
    assert (host.text("blog/compose.yaml"), host.text("shop/compose.yaml")) == ("services: {}\n", "broken")
    with pytest.raises(StackwardError, match="holds nothing of wiki"):
        host.restore(stacks=("wiki",))


def test_only_what_is_missing(host):
    host.put("shop/compose.yaml", "newer")
    (host.root / "blog" / "compose.yaml").unlink()
    host.restore(only_missing=True)
    assert (host.text("shop/compose.yaml"), host.text("blog/compose.yaml")) == ("newer", "services: {}\n")


def test_an_undo_puts_back_what_was_there(host):
    host.put("shop/compose.yaml", "mine")
    shutil.rmtree(host.root / "blog")
    before = host.tree()
    host.restore()
    assert host.tree() != before
    undone = restore_config.put_back(settings=host.settings, docker=None, force=True, now=NOW)
    assert host.tree() == before
    assert undone.details["places"] == [str(host.root / "shop/compose.yaml")]
    assert str(host.root / "blog") in undone.details["taken_away"]
    with pytest.raises(StackwardError, match="no restore of the configuration to undo"):
        restore_config.put_back(settings=host.settings, docker=None, force=True, now=NOW)


def test_what_was_replaced_is_gone_after_seven_days(host):
    host.put("shop/compose.yaml", "mine")
    host.restore()
    host.put("shop/compose.yaml", "mine again")
    host.restore(now=NOW + timedelta(days=8))
    assert sorted(os.listdir(host.root / ".stackward-kept")) == ["run-2"]


def test_what_is_kept_is_in_no_backup(host):
    host.put("shop/compose.yaml", "mine")
    host.restore()
    name = host.back_up(NOW + timedelta(hours=1))[0]
    names = subprocess.run(["tar", "-tzf", host.settings.backup_root / name], capture_output=True, check=True).stdout
    assert b"stackward-kept" not in names
    assert b"blog/compose.yaml" in names


def test_to_another_directory(host):
    to = host.place / "elsewhere"
    host.put("shop/compose.yaml", "mine")
    host.restore(to=to, secrets=True)
    assert (to / "shop" / "compose.yaml").read_text() == "services: {}\n"
    assert (to / "shop" / ".env").read_text() == "PASSWORD=hunter2\n"
    assert host.text("shop/compose.yaml") == "mine"
    with pytest.raises(RefusedError, match="not empty"):
        host.restore(to=to)


def test_secrets_from_outside_come_back_where_they_were(host):
    outside = host.place / "private" / "db.env"
    outside.parent.mkdir()
    outside.write_text("TOKEN=1")
    stack = Stack("shop", host.root / "shop", "shop", opted_in=True, secret_files=(outside,))
    later = NOW + timedelta(hours=1)
    backup_config.run(settings=host.settings, discovery_stacks=[stack], now=later, progress=Silent())
    outside.write_text("TOKEN=2")
    host.restore(now=LATER, secrets=True)
    assert outside.read_text() == "TOKEN=1"
    restore_config.put_back(settings=host.settings, docker=None, force=True, now=NOW)
    assert outside.read_text() == "TOKEN=2"
    to = host.place / "elsewhere"
    host.restore(now=LATER, secrets=True, to=to)
    assert (to / ".outside" / str(outside)[1:]).read_text() == "TOKEN=1"


def test_a_stack_by_itself_names_the_secrets_from_outside_that_it_may_lack(host):
    outside = host.place / "private" / "db.env"
    outside.parent.mkdir()
    outside.write_text("TOKEN=1")
    stack = Stack("shop", host.root / "shop", "shop", opted_in=True, secret_files=(outside,))
    later = NOW + timedelta(hours=1)
    backup_config.run(settings=host.settings, discovery_stacks=[stack], now=later, progress=Silent())
    assert not any(
        "db.env" in note for note in host.restore(now=LATER, stacks=("shop",), secrets=True).details["notes"]
    )
    outside.unlink()
    notes = host.restore(now=LATER, stacks=("shop",), secrets=True).details["notes"]
    assert any(str(outside) in note and "restore config .outside --secrets" in note for note in notes)
    assert not outside.exists()
    host.restore(now=LATER, stacks=(".outside",), secrets=True)
    assert outside.read_text() == "TOKEN=1"


def test_what_an_undo_moved_away_is_kept_for_seven_days_from_then(host):
    shutil.rmtree(host.root / "shop")
    host.restore(secrets=True)
    host.put("shop/data/new", "written since")
    undone = NOW + timedelta(days=6)
    restore_config.put_back(settings=host.settings, docker=None, force=True, now=undone)
    left = [*host.root.glob(".stackward-kept/*/old/shop/data/new")]
    assert not (host.root / "shop").exists()
    assert [file.read_text() for file in left] == ["written since"]
    assert kept.expire(host.state / "kept", undone + timedelta(days=6, hours=23)).gone == ()
    assert left[0].exists()
    assert len(kept.expire(host.state / "kept", undone + timedelta(days=7)).gone) == 1
    assert not left[0].exists()


class Engine:
    """What an engine says of its containers; `test_docker` asks a real one."""

    def __init__(self, *containers: Container) -> None:
        self._containers = containers

    def containers(self) -> list[Container]:
        return list(self._containers)


def test_an_undo_takes_no_directory_away_from_a_running_container(host):
    shutil.rmtree(host.root / "shop")
    host.restore(secrets=True)
    mount = Mount("bind", "", str(host.root / "shop/data"), "/data", writable=True)
    running = Container("1", "shop-db-1", "shop", "db", "running", mounts=(mount,))
    with pytest.raises(RefusedError, match="shop-db-1"):
        restore_config.put_back(settings=host.settings, docker=Engine(running), force=False, now=NOW)
    with pytest.raises(RefusedError, match="no Docker Engine"):
        restore_config.put_back(settings=host.settings, docker=None, force=False, now=NOW)
    assert (host.root / "shop").exists()
    restore_config.put_back(settings=host.settings, docker=Engine(), force=False, now=NOW)
    assert not (host.root / "shop").exists()


def test_the_wrong_identity_is_refused_before_anything_changes(host):
    age.generate_key(host.place / "other.key")
    host.put("shop/compose.yaml", "mine")
    with pytest.raises(RefusedError, match="not encrypted for"):
        host.restore(secrets=True, identity=host.place / "other.key")
    assert host.text("shop/compose.yaml") == "mine"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("which", [0, 1])
def test_a_damaged_backup_is_refused(host, which):
    flip(host.settings.backup_root / host.backed_up[which])
    host.put("shop/compose.yaml", "mine")
    with pytest.raises(RefusedError, match="is damaged"):
        host.restore(secrets=True)
    assert host.text("shop/compose.yaml") == "mine"


def test_force_restores_from_one_whose_checksum_alone_is_wrong(host):
    (host.settings.backup_root / f"{host.backed_up[0]}.sha256").write_text("0" * 64 + f"  {host.backed_up[0]}\n")
    host.put("shop/compose.yaml", "mine")
    result = host.restore(force=True)
    assert host.text("shop/compose.yaml") == "services: {}\n"
    assert result.outcome is Outcome.WARN


@pytest.mark.parametrize("point", ["restore-aside", "restore-copied"])
def test_killed_half_way_it_is_the_old_or_the_new(host, point):
    host.put("shop/compose.yaml", "mine")
    shutil.rmtree(host.root / "blog")
    before = host.tree()
    child = os.fork()
    if child == 0:
        host.restore(crash_point=point)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == 9
    Undo(host.state / "undo", None).take_back_open()
    assert host.tree() == before
    host.runs += 1
    host.restore()
    assert host.text("shop/compose.yaml") == "services: {}\n"
    restore_config.put_back(settings=host.settings, docker=None, force=True, now=NOW)
    assert host.tree() == before


def test_nothing_is_written_through_a_symlink(host):
    elsewhere = host.place / "elsewhere"
    elsewhere.mkdir()
    shutil.rmtree(host.root / "shop" / "conf")
    os.symlink(elsewhere, host.root / "shop" / "conf")
    result = host.restore()
    assert os.listdir(elsewhere) == []
    assert result.outcome is Outcome.WARN
    assert "shop/conf/owned is left as it is: a symlink stands where its directory was" in result.reasons


def test_a_directory_where_a_file_was_is_left_alone(host):
    (host.root / "shop" / "compose.yaml").unlink()
    host.put("shop/compose.yaml/file", "x")
    result = host.restore()
    assert "a directory stands in its place" in result.reasons[0]
    assert host.text("shop/compose.yaml/file") == "x"


def test_hard_links_stay_links(host):
    os.link(host.root / "shop" / "conf" / "owned", host.root / "shop" / "twin")
    host.back_up(NOW + timedelta(hours=1))
    (host.root / "shop" / "twin").unlink()
    host.restore(now=LATER)
    assert os.path.samefile(host.root / "shop" / "twin", host.root / "shop" / "conf" / "owned")


def test_a_stack_on_a_file_system_of_its_own_is_restored(host):
    subprocess.run(["mount", "-t", "tmpfs", "none", host.root / "blog"], check=True)
    try:
        host.put("blog/compose.yaml", "mine")
        host.restore()
        assert host.text("blog/compose.yaml") == "services: {}\n"
        restore_config.put_back(settings=host.settings, docker=None, force=True, now=NOW)
        assert host.text("blog/compose.yaml") == "mine"
    finally:
        subprocess.run(["umount", host.root / "blog"], check=True)


def test_names_that_lead_out_are_not_followed(host):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name in ("../evil", "/tmp/stackward-evil", "shop/../../evil2", "shop/good"):
            info = tarfile.TarInfo(name)
            info.mode = 0o644
            tar.addfile(info, io.BytesIO())
    path = host.settings.backup_root / "configs-20261122_000000.tar.gz"
    path.write_bytes(gzip.compress(made.getvalue()))
    result = host.restore(now=LATER)
    assert sorted(result.details["left"]) == ["../evil", "/tmp/stackward-evil", "shop/../../evil2"]
    assert (host.root / "shop" / "good").exists()
    assert not (host.place / "evil").exists()
    assert not (host.place / "evil2").exists()
    assert not Path("/tmp/stackward-evil").exists()


def test_the_seeds_tarball_without_a_checksum_restores(host):
    host.put("shop/compose.yaml", "from the seed")
    path = host.settings.backup_root / "configs-20261122_000000.tar.gz"
    subprocess.run(["tar", "-czf", path, "-C", host.root, "--exclude=.env", "."], check=True)
    host.put("shop/compose.yaml", "broken")
    result = host.restore(now=LATER)
    assert host.text("shop/compose.yaml") == "from the seed"
    assert any("content cannot be compared" in note for note in result.details["notes"])


def test_a_kept_secret_is_for_root_only(host):
    host.put("shop/.env", "PASSWORD=old")
    host.restore(secrets=True)
    assert stat.S_IMODE((host.root / ".stackward-kept" / "run-1").stat().st_mode) == 0o700


def test_an_older_one_by_its_name_or_date(host):
    host.put("shop/compose.yaml", "second")
    host.back_up(NOW + timedelta(days=1))
    host.put("shop/compose.yaml", "third")
    host.restore(now=LATER, wanted="2026-11-22")
    assert host.text("shop/compose.yaml") == "second"
    host.restore(now=LATER, wanted=host.backed_up[0])
    assert host.text("shop/compose.yaml") == "services: {}\n"
    with pytest.raises(StackwardError, match="no config backup 2026-01-01") as caught:
        host.restore(now=LATER, wanted="2026-01-01")
    assert caught.value.hint == "--from one of: 2026-11-22, 2026-11-21"


def test_the_secrets_are_those_that_belong_to_the_tarball(host):
    host.put("shop/.env", "PASSWORD=second\n")
    host.back_up(NOW + timedelta(days=1))
    host.restore(wanted="2026-11-21", secrets=True)
    assert host.text("shop/.env") == "PASSWORD=hunter2\n"


def test_no_backup_is_told(tmp_path):
    host = Host(tmp_path)
    for name in os.listdir(host.settings.backup_root):
        (host.settings.backup_root / name).unlink()
    with pytest.raises(StackwardError, match="no config backup"):
        host.restore()
