"""`stackward stack`, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stackward.cli.main import main
from stackward.core.errors import ExitCode

pytestmark = pytest.mark.btrfs


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("convert", "none-such"), ExitCode.USAGE, "no stack none-such"),
        (("convert", "none-such", "--undo"), ExitCode.USAGE, "no stack none-such"),
        (("convert", "shop", "data", "--undo"), ExitCode.USAGE, "--undo takes the stack alone"),
        (("convert", "shop"), ExitCode.REFUSED, "no Docker Engine answers"),
        (("convert", "shop", "--undo"), ExitCode.REFUSED, "no Docker Engine answers"),
    ],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path,
    volume: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    code: int,
    why: str,
) -> None:
    for name in ("docker/shop/data", "backup", "state", "etc", "run"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "docker/shop/compose.yaml").write_text("services: {web: {image: nginx, volumes: ['./data:/data']}}\n")
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
    assert main(("stack", *words)) == code
    out, err = capsys.readouterr()
    assert why in err + json.dumps(json.loads(out) if out else "")
    assert not (tmp_path / "docker/shop/data").is_symlink()
