"""Drills with a real engine, from backups on a file system that has no snapshots."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from stackward.core.model import JobResult, Outcome
from stackward.core.progress import Silent
from stackward.jobs import backup_config, backup_data, drill
from stackward.steps.instance.drill_copy import IDENTITY
from stackward.steps.undo import Undo
from stackward.tools import age
from stackward.tools.docker import Docker
from unit.hosts import DOCKER_HOST, SmallHost

pytestmark = [pytest.mark.btrfs, pytest.mark.usefixtures("needs_compose", "api")]
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
ROOM = 64 << 20


class Drilled:
    """A host whose backups lie on a small tmpfs, with one stack that is backed up; what it says of itself is a probe."""

    def __init__(self, root: Path, volume: Path, image: str) -> None:
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
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", self.backups], check=True)
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

    def back_up(self) -> str:
        stacks = self.host.discover().stacks
        result = backup_data.run(
            settings=self.host.settings, store=self.host.store, docker=self.docker, undo=self.undo, stacks=stacks,
            now=NOW, clock=lambda: NOW, run_id="b1", progress=Silent(),
        )  # fmt: skip
        assert result.outcome is Outcome.OK, result
        made = backup_config.run(settings=self.host.settings, discovery_stacks=stacks, now=NOW, progress=Silent())
        assert made.outcome is Outcome.OK, made
        return result.artifacts[0]

    def drill(self, *, dry_run: bool = False) -> JobResult:
        settings, store = self.host.settings, self.host.store
        means = drill.Means(settings, store, self.docker, self.undo, NOW, "d1", Silent())
        return drill.run(means, self.host.discover().stacks, dry_run=dry_run)

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
