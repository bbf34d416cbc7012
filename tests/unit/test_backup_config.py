from __future__ import annotations

import io
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from stackward.config import Settings
from stackward.core.errors import RefusedError, SettingsError, StackwardError
from stackward.core.model import Outcome, Policy, Problem, Stack
from stackward.core.progress import Silent
from stackward.jobs import backup_config
from stackward.steps import catalog
from stackward.tools import age, archive

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)


class Host:
    """A DOCKER_ROOT with one stack, `shop`, a BACKUP_ROOT, and an age key."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.root = place / "docker"
        self.backup = place / "backup"
        self.key = place / "age.key"
        self.backup.mkdir()
        self.put("shop/compose.yaml", "services: {}\n")
        self.put("shop/.env", "PASSWORD=hunter2\n")
        self.put("shop/data/rows", "rows")
        self.stacks = [self.stack("shop")]

    def put(self, path: str, text: str = "x") -> Path:
        full = self.root / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_text(text)
        return full

    def stack(self, name: str, **fields: object) -> Stack:
        directory = self.root / name
        fields = {"opted_in": True, "policy": Policy(backup=True), **fields}
        return Stack(name=name, directory=directory, project=name, **fields)

    def settings(self, **fields: object) -> Settings:
        fields = {"zone": ZoneInfo("Europe/Berlin"), "minimum_free_bytes": 0, **fields}
        return Settings(docker_root=self.root, backup_root=self.backup, state_dir=self.place / "state", **fields)

    def run(self, *, now: datetime = NOW, dry_run: bool = False, **fields: object):
        settings = self.settings(**fields)
        return backup_config.run(
            settings=settings, discovery_stacks=self.stacks, now=now, progress=Silent(), dry_run=dry_run
        )

    def listed(self) -> list[str]:
        return sorted(name for name in os.listdir(self.backup) if name != ".stackward-id")

    def names(self, artifact: str) -> set[str]:
        with open(self.backup / artifact, "rb") as file:
            return {os.fsdecode(member.name) for member in archive.members(file)}

    def secrets(self, artifact: str) -> dict[str, bytes]:
        """What `age -d | tar xz` makes of a capsule."""
        out = self.place / "out"
        out.mkdir(exist_ok=True)
        plain = subprocess.run(
            ["age", "-d", "-i", self.key, self.backup / artifact], capture_output=True, check=True
        ).stdout
        subprocess.run(["tar", "-xz", "-C", out], input=plain, check=True)
        files = [path for path in out.rglob("*") if path.is_file()]
        return {str(path.relative_to(out)): path.read_bytes() for path in files}


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_the_tarball_has_the_configuration_and_neither_data_nor_secrets(host):
    host.put("shop/.env.example", "PASSWORD=\n")
    result = host.run()
    assert result.artifacts == ("configs-20261121_030000.tar.gz",)
    assert host.names(result.artifacts[0]) == {"shop", "shop/compose.yaml", "shop/.env.example", "shop/data"}


def test_sha256sum_proves_it(host):
    result = host.run(age_recipients=(age.generate_key(host.key),))
    assert host.listed() == [
        "configs-20261121_030000.tar.gz",
        "configs-20261121_030000.tar.gz.sha256",
        "configs-20261121_030000.tar.gz.sha256.sig",
        "secrets-20261121_030000.tar.gz.age",
        "secrets-20261121_030000.tar.gz.age.sha256",
        "secrets-20261121_030000.tar.gz.age.sha256.sig",
    ]
    for name in result.artifacts:
        subprocess.run(["sha256sum", "--check", "--strict", f"{name}.sha256"], cwd=host.backup, check=True)


def test_the_capsule_restores_secrets_with_age_and_tar_alone(host):
    outside = host.place / "outside" / "db.env"
    outside.parent.mkdir()
    outside.write_text("TOKEN=1")
    host.stacks = [host.stack("shop", secret_files=(host.root / "shop" / ".env", outside))]
    result = host.run(age_recipients=(age.generate_key(host.key),))
    assert (result.outcome, result.stacks[0].reasons) == (Outcome.OK, ())
    key = host.settings().state_dir / "signing/id_ed25519"
    assert host.secrets(result.artifacts[1]) == {
        "shop/.env": b"PASSWORD=hunter2\n",
        f".outside{outside}": b"TOKEN=1",
        f".outside{key}": key.read_bytes(),
        f".outside{key}.pub": key.with_name("id_ed25519.pub").read_bytes(),
    }


def test_without_recipients_a_stack_with_secrets_is_told_of(host):
    host.put("plain/compose.yaml")
    host.stacks = [host.stack("shop"), host.stack("plain")]
    shop, plain = host.run().stacks
    assert (shop.outcome, shop.reasons) == (Outcome.WARN, (backup_config.NO_RECIPIENTS,))
    assert (plain.outcome, plain.reasons) == (Outcome.OK, ())


def test_a_wrong_recipient_stops_it_before_anything_is_written(host):
    with pytest.raises(SettingsError):
        host.run(age_recipients=("age1wrong",))
    assert os.listdir(host.backup) == []


def test_nothing_is_done_until_a_stack_is_opted_in(host):
    host.stacks = [host.stack("shop", opted_in=False)]
    result = host.run()
    assert result.outcome is Outcome.SKIPPED
    assert "stackward init" in result.reasons[0]
    assert os.listdir(host.backup) == []


def test_a_dry_run_tells_and_writes_nothing(host):
    result = host.run(dry_run=True)
    assert os.listdir(host.backup) == []
    assert result.details["secrets"] == ["shop/.env"]
    assert {
        "path": "shop/data",
        "reason": "only data backups hold data directories",
        "outcome": "ok",
    } in result.details["left_out"]


def test_the_second_run_of_a_second_gets_the_next_one(host):
    first, second = host.run().artifacts, host.run().artifacts
    assert (first, second) == (("configs-20261121_030000.tar.gz",), ("configs-20261121_030001.tar.gz",))


def test_leftovers_of_a_killed_run_are_removed(host):
    host.backup.joinpath(".incoming-config-configs-20261120_030000.tar.gz").write_text("half")
    host.backup.joinpath("configs-20261120_030000.tar.gz.sha256").write_text("no tarball")
    host.backup.joinpath("configs-20261120_030000.tar.gz.sha256.sig").write_text("no tarball")
    host.backup.joinpath("notes.sha256").write_text("not ours")
    host.run()
    assert host.listed() == [
        "configs-20261121_030000.tar.gz",
        "configs-20261121_030000.tar.gz.sha256",
        "configs-20261121_030000.tar.gz.sha256.sig",
        "notes.sha256",
    ]


@pytest.mark.parametrize("point", ["config-incoming", "config-checksum"])
def test_killed_at_any_point_nothing_half_made_is_listed(host, point):
    child = os.fork()
    if child == 0:
        host.run(crash_point=point)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == 9
    assert catalog.catalog(host.settings(), NOW) == []
    result = host.run()
    name = result.artifacts[0]
    assert host.listed() == [name, f"{name}.sha256", f"{name}.sha256.sig"]


def test_a_full_disk_fails_with_a_hint_and_leaves_nothing(host):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", host.backup], check=True)
    try:
        host.put("shop/noise", "")
        (host.root / "shop" / "noise").write_bytes(os.urandom(4 << 20))
        with pytest.raises(StackwardError, match="No space left") as caught:
            host.run()
        assert "make room" in caught.value.hint
        assert host.listed() == []
    finally:
        subprocess.run(["umount", host.backup], check=True)


WRITE_ONLY = Path("/sys/bus/cpu/uevent")  # root cannot open it for reading


@pytest.mark.skipif(not WRITE_ONLY.exists(), reason="needs a file that root cannot read")
def test_a_file_that_cannot_be_read_fails_its_stack_alone(host):
    host.put("plain/compose.yaml")
    host.stacks.append(host.stack("plain"))
    bad = [host.put(os.fsdecode(b"shop/bad: \n\\\xe9")), host.put("shop/.env")]
    for path in bad:
        subprocess.run(["mount", "--bind", WRITE_ONLY, path], check=True)
    try:
        result = host.run(age_recipients=(age.generate_key(host.key),))
    finally:
        for path in bad:
            subprocess.run(["umount", path], check=True)
    shop, plain = result.stacks
    assert (shop.outcome, plain.outcome) == (Outcome.FAILED, Outcome.OK)
    assert shop.reasons == (
        "shop/bad: \\n\\\\xe9 is left out: it cannot be read",
        "shop/.env is left out: it cannot be read",
    )
    assert host.names(result.artifacts[0]) == {"shop", "shop/compose.yaml", "shop/data", "plain", "plain/compose.yaml"}


def test_another_disk_is_refused(host):
    host.run()
    (host.backup / ".stackward-id").unlink()
    with pytest.raises(RefusedError):
        host.run()


def test_a_missing_docker_root_is_told(host):
    host.root.rename(host.place / "elsewhere")
    with pytest.raises(StackwardError, match="DOCKER_ROOT"):
        host.run()


def test_the_tarball_is_for_root_only(host):
    name = host.run().artifacts[0]
    assert (host.backup / name).stat().st_mode & 0o777 == 0o600


def test_a_stack_whose_directory_cannot_be_named_in_utf8_is_in_it(host):
    odd = os.fsdecode(b"caf\xe9\n")
    host.put(f"{odd}/compose.yaml")
    host.stacks.append(host.stack(odd))
    name = host.run().artifacts[0]
    with open(host.backup / name, "rb") as file:
        assert b"caf\xe9\n/compose.yaml" in [member.name for member in archive.members(io.BytesIO(file.read()))]


def test_a_secret_out_of_sight_makes_the_stack_a_warning_that_names_it(tmp_path):
    host = Host(tmp_path)
    told = "/etc/shadow is outside of what the appliance can see: it is in no backup"
    host.stacks = [host.stack("shop", problems=(Problem("shop", told, key="secrets"), Problem("shop", "other")))]
    recipient = age.generate_key(host.key)
    (part,) = host.run(age_recipients=(recipient,)).stacks
    assert (part.outcome, part.reasons) == (Outcome.WARN, (told,))
