"""Drills with a real engine, from backups on a file system that has no snapshots."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stackward.core.errors import ExitCode
from stackward.core.model import JobResult, Outcome
from stackward.core.progress import Silent
from stackward.jobs import backup_config, backup_data, drill
from stackward.steps.config_archives import IDENTITY
from stackward.steps.undo import Undo
from stackward.tools import age
from stackward.tools.docker import Docker
from unit.hosts import DOCKER_HOST, SmallHost

pytestmark = [pytest.mark.btrfs, pytest.mark.usefixtures("needs_compose", "api")]
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
ROOM = 64 << 20


class Drilled:
    """A host whose backups lie on a small tmpfs, with one stack that is backed up; what it says of itself is a probe."""

    def __init__(self, root: Path, volume: Path, image: str, room: int = ROOM) -> None:
        recipient = age.generate_key(root / IDENTITY)
        self.image, self.name = image, f"stackward-unit-{uuid.uuid4().hex[:8]}"
        self.host = SmallHost(
            root / "host",
            docker_host=DOCKER_HOST,
            volume=volume,
            age_recipients=(recipient,),
            minimum_free_bytes=ROOM // 4,
        )
        (root / IDENTITY).rename(self.host.settings.config_dir / IDENTITY)
        self.backups = self.host.settings.backup_root
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", self.backups], check=True)
        self.docker = Docker(DOCKER_HOST)
        self.undo = Undo(self.host.settings.state_dir / "undo", self.docker)

    def stack(self, name: str, probe: str = "true", more: str = "", service: str = "") -> Path:
        directory = self.host.stack(
            f"{self.name}-{name}",
            f"""
            x-stackward:
              backup: true
              staging.wait: 3s
              {service}
            services:
              web:
                image: {self.image}
                command: [sh, -c, "cat /data/f /note /run/secrets/token; echo drilled >>/data/log; exec sleep 1000"]
                stop_signal: SIGKILL
                network_mode: none
                volumes: ["./data:/data", "./note:/note:ro"]
                secrets: [token]
                labels: {{stackward.probe: '{probe}'}}
                {more}
            secrets:
              token: {{file: ./token.env}}
            """,
        )
        (directory / "data").mkdir()
        self.write(directory, "then")
        return directory

    def write(self, directory: Path, text: str) -> None:
        for name in ("data/f", "note", "token.env"):
            (directory / name).write_text(f"{text}\n")

    def back_up(self, now: datetime = NOW) -> str:
        stacks = self.host.discover().stacks
        result = backup_data.run(
            settings=self.host.settings, store=self.host.store, docker=self.docker, undo=self.undo, stacks=stacks,
            now=now, clock=lambda: now, run_id=f"b{now:%d%H}", progress=Silent(),
        )  # fmt: skip
        assert result.outcome in (Outcome.OK, Outcome.SKIPPED), result.stacks
        made = backup_config.run(settings=self.host.settings, discovery_stacks=stacks, now=now, progress=Silent())
        assert made.outcome is Outcome.OK, made
        return next(iter(result.artifacts), made.artifacts[0])

    def drill(
        self,
        *names: str,
        dry_run: bool = False,
        wanted: str | None = None,
        now: datetime = NOW,
        unsigned: bool = False,
    ) -> JobResult:
        settings, store = self.host.settings, self.host.store
        means = drill.Means(settings, store, self.docker, self.undo, now, "d1", Silent())
        return drill.run(means, self.host.discover().stacks, names, wanted, dry_run=dry_run, unsigned=unsigned)

    def left(self) -> list[str]:
        """Whatever a drill may leave."""
        instances = self.host.settings.state_dir / "drills/instances"
        containers = [one.name for one in self.docker.containers() if one.project.startswith(self.name)]
        incoming = [path.name for path in self.backups.iterdir() if path.name.startswith(".incoming")]
        return [*containers, *incoming, *map(str, instances.iterdir() if instances.exists() else ())]


@pytest.fixture
def drilled(tmp_path: Path, volume: Path, image: str) -> Iterator[Drilled]:
    made = Drilled(tmp_path, volume, image)
    yield made
    made.host.store.close()
    subprocess.run(["umount", made.backups], check=True)


def parts_of(result: JobResult) -> dict[str, Any]:
    return {part.stack.rpartition("-")[2]: part for part in result.stacks}


def test_without_btrfs_a_copy_is_booted_with_data_configuration_and_secrets_of_the_backup(drilled: Drilled) -> None:
    directory = drilled.stack("shop", "grep -q then /data/f && grep -q then /note && grep -q then /run/secrets/token")
    name = drilled.back_up()
    drilled.write(directory, "now")
    now = (directory / "compose.yaml").read_text().replace(drilled.image, "none").replace("exec sleep 1000", "exit 1")
    (directory / "compose.yaml").write_text(now)
    drilled.stack("later", "true")  # which is in no backup yet
    result = drilled.drill()
    parts = parts_of(result)
    assert parts["shop"].outcome is Outcome.OK, parts["shop"].reasons
    assert "web: its probe succeeds" in result.details["proofs"][directory.name]
    assert "no backup" in parts["later"].reasons[0]
    assert drilled.left() == []
    files = [path.name for path in (drilled.backups / name).rglob("*") if path.is_file()]
    assert "f" in files
    assert "log" not in files  # what the instance wrote went into the copy


def test_where_there_is_no_room_for_a_copy_that_is_said_beforehand_and_nothing_begins(drilled: Drilled) -> None:
    directory = drilled.stack("shop")
    (directory / "data/large").write_bytes(os.urandom(ROOM // 2))
    drilled.stack("wiki")
    drilled.back_up()
    foreseen = drilled.drill(dry_run=True).details["foreseen"]
    assert "cannot be tried: a copy needs 48" in foreseen[directory.name]
    assert foreseen[f"{drilled.name}-wiki"].startswith("from data-")
    parts = parts_of(drilled.drill())
    assert parts["shop"].outcome is Outcome.SKIPPED
    assert "on Btrfs it needs none" in parts["shop"].reasons[0]
    assert parts["wiki"].outcome is Outcome.OK
    assert drilled.left() == []


def test_one_that_never_becomes_healthy_fails_alone_and_its_logs_are_kept(drilled: Drilled) -> None:
    broken = drilled.stack("shop", more="healthcheck: {test: [CMD, 'false'], interval: 1s, retries: 1}")
    drilled.stack("wiki")
    drilled.back_up()
    result = drilled.drill()
    parts = parts_of(result)
    assert result.outcome is Outcome.FAILED
    assert parts["wiki"].outcome is Outcome.OK
    assert "after 3 s" in parts["shop"].reasons[0]
    assert "then" in Path(parts["shop"].reasons[-1].partition("are kept: ")[2]).read_text()
    assert drilled.host.store.drills()[broken.name].outcome is Outcome.FAILED
    assert drilled.left() == []


def test_a_stack_without_data_is_drilled_from_its_configuration_alone(drilled: Drilled) -> None:
    """Its page is what is backed up; by another stack's data backup it is not held."""
    directory = drilled.host.stack(
        f"{drilled.name}-page",
        f"""
        x-stackward: {{backup: true}}
        services:
          web:
            image: {drilled.image}
            command: [sleep, inf]
            stop_signal: SIGKILL
            network_mode: none
            volumes: ["./page:/page:ro"]
            labels: {{stackward.probe: grep -q then /page}}
        """,
        page="then\n",
    )
    drilled.stack("shop")
    drilled.back_up()
    (directory / "page").write_text("now\n")
    configs = [path.name for path in drilled.backups.glob("configs-*.tar.gz")]
    foreseen = drilled.drill(dry_run=True).details["foreseen"]
    assert foreseen[directory.name] == f"from {configs[0]}"
    part = parts_of(drilled.drill())["page"]
    assert (part.outcome, part.reasons, part.artifact) == (Outcome.OK, (), configs[0])
    assert drilled.drill(directory.name, wanted=f"{NOW:%Y-%m-%d}").stacks[0].artifact == configs[0]
    assert drilled.left() == []


def test_a_stack_that_no_backup_of_configuration_holds_is_skipped_and_says_so(drilled: Drilled) -> None:
    drilled.stack("shop")
    drilled.back_up()
    text = f"x-stackward: {{backup: true}}\nservices: {{web: {{image: '{drilled.image}'}}}}"
    drilled.host.stack(f"{drilled.name}-new", text)
    part = parts_of(drilled.drill())["new"]
    assert part.outcome is Outcome.SKIPPED
    assert "does not hold" in part.reasons[0]


def test_what_a_stack_names_outside_its_directory_comes_from_backups_too(drilled: Drilled) -> None:
    root = drilled.host.settings.docker_root
    (root / "shared/conf").mkdir(parents=True)
    (root / "shared/conf/page").write_text("then\n")
    (root / "shared/base.yaml").write_text(
        f"services: {{base: {{image: '{drilled.image}', stop_signal: SIGKILL, env_file: common.env}}}}\n"
    )
    (root / "shared/common.env").write_text("WORD=then\n")
    (root / "files").mkdir()
    (root / "files/f").write_text("then\n")
    directory = drilled.host.stack(
        f"{drilled.name}-page",
        f"""
        x-stackward: {{backup: true}}
        services:
          web:
            extends: {{file: ../shared/base.yaml, service: base}}
            command: [sleep, inf]
            network_mode: none
            volumes: ["../shared/conf:/conf:ro", "{root}/shared/conf/page:/page:ro", "../files:/files"]
            labels:
              stackward.probe: 'test "$$WORD" = then && grep -q then /conf/page && grep -q then /page && grep -q then /files/f'
        """,
    )
    drilled.back_up()
    for path in ("shared/conf/page", "files/f"):
        (root / path).write_text("now\n")
    (root / "shared/common.env").write_text("WORD=now\n")
    part = parts_of(drilled.drill())["page"]
    assert (part.outcome, part.reasons) == (Outcome.OK, ()), part
    (drilled.host.settings.config_dir / IDENTITY).unlink()
    (root / "shared/common.env").write_text("WORD=then\n")
    part = parts_of(drilled.drill())["page"]
    assert part.outcome is Outcome.WARN, part.reasons
    assert "production's of now" in part.reasons[0]
    assert drilled.left() == []
    assert directory.exists()


def test_what_backups_do_not_hold_is_productions_of_now_where_it_may_be_read_and_that_is_said(drilled: Drilled) -> None:
    root = drilled.host.settings.docker_root
    (root / "other/data").mkdir(parents=True)
    (root / "other/compose.yaml").write_text("services: {}")
    (root / "other/data/f").write_text("then\n")
    (root.parent / "common.env").write_text("WORD=then\n")
    probe = 'test "$$WORD" = then && grep -q then /other/f'
    (root / "absolute.env").write_text("OTHER=x\n")
    more = f"env_file: [../../common.env, {root}/absolute.env]"
    directory = drilled.stack("shop", probe, more)
    text = (
        (directory / "compose.yaml")
        .read_text()
        .replace('"./note:/note:ro"', '"./note:/note:ro", "../other/data:/other:ro"')
    )
    (directory / "compose.yaml").write_text(text)
    drilled.back_up()
    (part,) = drilled.drill().stacks
    assert part.outcome is Outcome.WARN, part.reasons
    (config,) = (path.name for path in drilled.backups.glob("configs-*.tar.gz"))
    assert set(part.reasons) == {
        f"{root.parent}/common.env is production's of now: {config} does not hold it",
        f"{root}/other/data is production's of now: {config} does not hold it",
        f"{root}/absolute.env is production's of now: it is named by its absolute path",
    }
    text = (directory / "compose.yaml").read_text()
    (directory / "compose.yaml").write_text(text.replace('/note:ro", "../other', '/note:ro", "..:/all:ro", "../other'))
    later = NOW + timedelta(hours=1)
    drilled.back_up(later)
    (part,) = drilled.drill(now=later).stacks
    assert part.outcome is Outcome.SKIPPED
    assert f"web: {root} holds all of production" in part.reasons[0]
    assert drilled.left() == []


def test_what_no_backup_holds_is_named_as_it_is_called_in_production(drilled: Drilled) -> None:
    root = drilled.host.settings.docker_root
    (root / "elsewhere").mkdir()
    drilled.stack("shop", more="networks: {}").joinpath("conf").mkdir()
    shop = root / f"{drilled.name}-shop"
    text = (shop / "compose.yaml").read_text()
    (shop / "compose.yaml").write_text(text.replace('"./note:/note:ro"', '"./conf/gone:/gone:ro", "./note:/note:ro"'))
    (shop / "conf/gone").mkdir()
    (root / ".gitignore").write_text("gone/\n")
    drilled.back_up()
    (part,) = drilled.drill().stacks
    assert part.outcome is Outcome.SKIPPED
    assert f"{shop}/conf/gone is not in data-" in part.reasons[0]
    assert "instances" not in part.reasons[0]


@pytest.mark.parametrize("place", ["./cache", "{volume}/cache-of-shop"])
def test_a_bind_that_backups_leave_out_on_purpose_begins_empty(drilled: Drilled, place: str) -> None:
    source = place.format(volume=drilled.host.settings.volume)
    directory = drilled.stack(
        "shop", 'test -z "$$(cat /cache/*)" && grep -q then /data/f', service=f'backup.skip: ["{source}"]'
    )
    text = (directory / "compose.yaml").read_text()
    (directory / "compose.yaml").write_text(text.replace('"./data:/data"', f'"./data:/data", "{source}:/cache"'))
    cache = directory / source
    cache.mkdir()
    cache.chmod(0o1777)
    (cache / "much").write_text("of no use\n")
    drilled.back_up()
    (part,) = drilled.drill().stacks
    assert (part.outcome, part.reasons) == (Outcome.OK, ())
    assert [path.name for path in cache.iterdir()] == ["much"]


def test_a_service_that_ends_is_told_by_its_own_last_words(drilled: Drilled) -> None:
    directory = drilled.stack("shop")
    needed = f"  first:\n    image: {drilled.image}\n    network_mode: none\n    command: [sh, -c, 'echo no such table; exit 3']\n"
    text = (directory / "compose.yaml").read_text().replace("services:\n", f"services:\n{needed}")
    waits = "    depends_on: {first: {condition: service_completed_successfully}}\n    stop_signal"
    (directory / "compose.yaml").write_text(text.replace("    stop_signal", waits))
    drilled.back_up()
    (part,) = drilled.drill().stacks
    assert part.outcome is Outcome.FAILED
    assert part.reasons[0] == "first ended with exit code 3: no such table"
    assert "its logs are kept" in part.reasons[1]
    assert drilled.left() == []


def test_a_name_that_no_compose_file_can_carry_is_refused_and_leaves_nothing(drilled: Drilled) -> None:
    directory = drilled.stack("shop")
    directory.rename(odd := directory.with_name(directory.name + "-caf\udce9"))
    drilled.back_up()
    (part,) = drilled.drill().stacks
    assert part.outcome is Outcome.SKIPPED
    assert "is not UTF-8" in part.reasons[0]
    assert drilled.left() == []
    assert odd.exists()


def test_a_stack_with_a_hand_written_staging_service_is_drilled_without_it(drilled: Drilled) -> None:
    staged = "staging.service: staging"
    directory = drilled.stack("shop", "grep -q then /data/f", service=staged)
    text = (directory / "compose.yaml").read_text()
    nightly = drilled.host.settings.volume / ".nightly/shop"
    own = f"services:\n  staging: {{image: {drilled.image}, privileged: true, volumes: ['{nightly}:/data']}}\n"
    (directory / "compose.yaml").write_text(text.replace("services:\n", own, 1))
    drilled.back_up()
    result = drilled.drill()
    (part,) = result.stacks
    assert part.outcome is Outcome.OK, part.reasons
    assert [proof.partition(":")[0] for proof in result.details["proofs"][directory.name]] == ["web", "web"]


def test_a_forged_backup_is_not_run_and_a_forged_override_gives_no_rights(drilled: Drilled, tmp_path: Path) -> None:
    """Its checksum lies beside it; who can write to BACKUP_ROOT would be root on the host after the weekly drill."""
    directory = drilled.stack("shop", "true")
    drilled.back_up()
    canary = tmp_path / "canary"
    greedy = f"services: {{web: {{privileged: true, pid: host, volumes: ['{tmp_path}:/host'], command: [touch, /host/canary]}}}}"
    plain = gzip.decompress(newest_config(drilled).read_bytes())
    with (
        tarfile.open(fileobj=(made := io.BytesIO()), mode="w") as forged,
        tarfile.open(fileobj=io.BytesIO(plain)) as old,
    ):
        for member in old:
            forged.addfile(member, old.extractfile(member) if member.isreg() else None)
        planted = tarfile.TarInfo(f"{directory.name}/compose.staging.yaml")
        planted.size = len(greedy)
        forged.addfile(planted, io.BytesIO(greedy.encode()))
    target = newest_config(drilled)
    target.write_bytes(gzip.compress(made.getvalue()))
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    Path(f"{target}.sha256").write_text(f"{digest}  {target.name}\n")

    part = parts_of(drilled.drill())["shop"]
    assert part.outcome is Outcome.SKIPPED
    assert "is signed by another appliance" in part.reasons[0]
    assert "--unsigned" in part.reasons[0]

    part = parts_of(drilled.drill(unsigned=True))["shop"]
    assert part.outcome is Outcome.SKIPPED
    for why in ("web is privileged", "web has `pid: host`", f"web mounts {tmp_path}"):
        assert why in part.reasons[0]
    assert not canary.exists()
    assert drilled.left() == []


def test_a_damaged_file_is_left_out_and_named_and_is_no_proof(drilled: Drilled) -> None:
    """No verify has to have run before."""
    directory = drilled.stack("shop", "test ! -e /data/f && test -e /data/g")
    (directory / "data/g").write_text("good")
    day = drilled.backups / drilled.back_up()
    (day / directory.name / "f").write_text("rotten")
    result = drilled.drill()
    part = parts_of(result)["shop"]
    assert part.outcome is Outcome.FAILED
    assert part.reasons[0] == f"{day.name} is damaged, 1 file of it left out: {directory.name}/f is damaged"
    assert len(part.reasons) == 1  # its probe found the other file, and not this one
    assert result.exit_code == ExitCode.DAMAGED
    assert drilled.left() == []


def newest_config(drilled: Drilled) -> Path:
    return max(drilled.backups.glob("configs-*.tar.gz"))
