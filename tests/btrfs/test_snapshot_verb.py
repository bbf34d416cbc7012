"""`stackward snapshot`, from the command line to the volume, and the job of the schedule."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stackward.cli.main import main
from stackward.config import Settings
from stackward.core.errors import ExitCode
from stackward.core.model import Keep, Outcome
from stackward.core.progress import Silent
from stackward.jobs import snapshot
from stackward.steps.volume import snapshots
from stackward.tools import btrfs

pytestmark = pytest.mark.btrfs
NOW = datetime(2026, 11, 21, 0, 30, tzinfo=UTC)
Called = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def called(tmp_path: Path, volume: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Called:
    for name in ("docker", "backup", "state", "etc", "run"):
        (tmp_path / name).mkdir()
    for name, value in {
        "DOCKER_ROOT": tmp_path / "docker",
        "BACKUP_ROOT": tmp_path / "backup",
        "STACKWARD_VOLUME": volume,
        "STACKWARD_STATE_DIR": tmp_path / "state",
        "STACKWARD_CONFIG_DIR": tmp_path / "etc",
        "STACKWARD_RUN_DIR": tmp_path / "run",
        "STACKWARD_DOCKER_HOST": f"unix://{tmp_path}/no-docker.sock",
    }.items():
        monkeypatch.setenv(name, str(value))

    def call(*words: str) -> tuple[int, Any, str]:
        code = main(words)
        out, err = capsys.readouterr()
        return code, json.loads(out) if out.startswith("{") else out, err

    return call


def job(volume: Path, now: datetime, **changes: Any) -> Any:
    settings = Settings(volume=volume, snapshot_keep=Keep(daily=3), **changes)
    return snapshot.run(settings=settings, docker=None, now=now, progress=Silent())


def test_a_snapshot_is_made_listed_and_deleted(called: Called, volume: Path) -> None:
    (volume / "f").write_text("x")
    code, made, _ = called("snapshot", "create", "before-upgrade")
    assert code == 0
    assert (Path(made["details"]["path"]) / "f").read_text() == "x"
    _, listed, _ = called("snapshot", "list")
    (row,) = listed["snapshots"]
    assert row["label"] == "before-upgrade"
    assert row["keep"]
    assert "held: somebody named it" in " ".join(row["reasons"])
    assert "before-upgrade" in called("snapshot", "list", "--human")[1]
    _, dry, _ = called("snapshot", "delete", "before-upgrade", "--dry-run")
    assert dry["details"]["removed"] == [row["name"]]
    code, gone, _ = called("snapshot", "delete", "before-upgrade")
    assert (code, gone["details"]["removed"]) == (0, [row["name"]])
    assert called("snapshot", "list")[1]["snapshots"] == []


def test_nothing_is_deleted_where_several_are_meant(called: Called) -> None:
    for _ in range(2):
        called("snapshot", "create", "twice")
    names = [row["name"] for row in called("snapshot", "list")[1]["snapshots"]]
    for wanted in ("twice", names[0][:8]):
        code, out, err = called("snapshot", "delete", wanted)
        assert code == ExitCode.USAGE
        assert names[0] in err + json.dumps(out)
    assert len(called("snapshot", "list")[1]["snapshots"]) == 2
    assert called("snapshot", "delete", names[0])[0] == ExitCode.OK
    assert called("snapshot", "delete", "twice")[0] == ExitCode.OK


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("create", "a/b"), ExitCode.USAGE, "label must be"),
        (("create", "a", "b"), ExitCode.USAGE, "takes one name"),
        (("delete",), ExitCode.USAGE, "needs the name"),
        (("delete", "none-such"), ExitCode.USAGE, "no snapshot none-such"),
        (("diff",), ExitCode.USAGE, "one snapshot or two"),
        (("restore", "x"), ExitCode.USAGE, "needs a snapshot and a stack"),
        (("diff", "2026-01-01"), ExitCode.USAGE, "no snapshot 2026-01-01"),
        (("restore", "x", "shop"), ExitCode.USAGE, "no snapshot x"),
        (("restore", "x", "odd:"), ExitCode.USAGE, "names no path"),
        (("create", "2026-11-21"), ExitCode.USAGE, "something else than a date"),
        (("restore", "x", "shop", "--overwrite"), ExitCode.USAGE, "--overwrite is for STACK:PATH"),
        (("list", "x"), ExitCode.USAGE, "takes no name"),
    ],
)
def test_what_makes_no_sense_is_said(called: Called, words: tuple[str, ...], code: int, why: str) -> None:
    got, out, err = called("snapshot", *words)
    assert got == code
    assert why in err + json.dumps(out)


def test_a_diff_against_another_and_against_now(called: Called, volume: Path) -> None:
    (volume / "f").write_text("x")
    called("snapshot", "create", "one")
    (volume / "new\nline").write_text("x")
    (volume / "f").rename(volume / "g")
    called("snapshot", "create", "two")
    (volume / os.fsdecode(b"\xff")).write_text("x")
    (volume / "g").unlink()
    code, diff, _ = called("snapshot", "diff", "one", "two")
    assert code == 0
    assert diff["created"] == [{"path": "new\\nline", "base64": base64.b64encode(b"new\nline").decode()}]
    assert diff["renamed"] == [{"from": {"path": "f"}, "to": {"path": "g"}}]
    _, diff, _ = called("snapshot", "diff", "two")
    assert diff["created"] == [{"path": "\\xff", "base64": base64.b64encode(b"\xff").decode()}]
    assert diff["removed"] == [{"path": "g"}]
    assert "- f" in called("snapshot", "diff", "one", "--human")[1]
    assert [p.name for p in snapshots.home_of(volume).iterdir() if p.name.startswith(".")] == []


def test_going_back_to_one_and_forth_again(called: Called, volume: Path, tmp_path: Path) -> None:
    (volume / "shop").mkdir()
    (tmp_path / "docker/shop").mkdir()
    (tmp_path / "docker/shop/data").symlink_to(volume / "shop")
    (tmp_path / "docker/shop/compose.yaml").write_text("services: {web: {image: nginx, volumes: ['./data:/data']}}\n")
    (volume / "shop/f").write_text("then")
    called("snapshot", "create", "good")
    (volume / "shop/f").write_text("now")
    assert called("snapshot", "restore", "good", "shop")[0] == ExitCode.REFUSED  # nobody can say whether it runs
    code, told, _ = called("snapshot", "restore", "good", "shop", "--force")
    assert (code, told["artifacts"]) == (0, [told["details"]["snapshot"]])
    assert (volume / "shop/f").read_text() == "then"
    assert called("restore", "shop", "--undo", "--force")[0] == 0
    assert (volume / "shop/f").read_text() == "now"


def test_without_btrfs_the_job_is_skipped_and_who_asks_is_refused(called: Called, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "plain").mkdir()
    assert job(tmp_path / "plain", NOW).outcome is Outcome.SKIPPED
    monkeypatch.setenv("STACKWARD_VOLUME", str(tmp_path / "plain"))
    code, told, _ = called("snapshot", "create")
    assert code == ExitCode.REFUSED
    assert "not on Btrfs" in told["reasons"][0]
    assert "not on Btrfs" in called("snapshot", "list", "--human")[1]


def test_a_month_of_nights_leaves_what_the_grid_keeps_and_each_holds_its_night(volume: Path) -> None:
    for night in range(12):
        (volume / "night").write_text(str(night))
        result = job(volume, NOW + timedelta(days=night))
        assert result.outcome is Outcome.OK
    kept = snapshots.listed(volume, UTC)
    assert [(one.path / "night").read_text() for one in kept] == ["9", "10", "11"]
    assert result.details["removed"] == ["20261129_003000"]
    assert all(item["reasons"] for item in result.details["items"])


def test_what_a_killed_run_left_goes_with_the_next_run(volume: Path) -> None:
    job(volume, NOW)
    btrfs.snapshot(volume, snapshots.home_of(volume) / ".incoming-x", read_only=True)
    btrfs.snapshot(volume, volume / ".nightly.new", read_only=False)
    job(volume, NOW + timedelta(days=1))
    assert [path.name for path in volume.iterdir()] == [".stackward"]
    assert sorted(p.name for p in snapshots.home_of(volume).iterdir()) == ["20261121_003000", "20261122_003000"]


def test_a_snapshot_that_is_in_use_goes_with_a_warning_that_names_the_user(volume: Path, monkeypatch) -> None:
    monkeypatch.setattr(snapshots, "WAIT_SECONDS", 1.0)
    for night in range(3):
        job(volume, NOW + timedelta(days=night))
    oldest = snapshots.listed(volume, UTC)[0]
    user = subprocess.Popen(["sleep", "60"], cwd=oldest.path)
    try:
        result = job(volume, NOW + timedelta(days=3))
    finally:
        user.kill()
        user.wait()
    assert result.outcome is Outcome.WARN
    assert f"sleep (process {user.pid})" in result.reasons[0]
    assert oldest.name in result.details["removed"]
