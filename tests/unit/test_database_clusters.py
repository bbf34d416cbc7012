"""Which PostgreSQL clusters a drill finds in the data of an instance, before it starts."""

from __future__ import annotations

import os
from pathlib import Path

from stackward.steps.instance.databases import clusters


def control(at: Path, identifier: int) -> None:
    (at / "global").mkdir(parents=True)
    (at / "global/pg_control").write_bytes(identifier.to_bytes(8, "little") + b"more")


def mounted(source: Path) -> dict[str, object]:
    return {"volumes": [{"type": "bind", "source": str(source), "target": "/data"}]}


def test_clusters_are_found_some_directories_deep(tmp_path: Path) -> None:
    control(tmp_path / "data/17/main", 17)
    control(tmp_path / "data/18", 18)
    assert clusters(mounted(tmp_path / "data")) == {17, 18}
    assert clusters(mounted(tmp_path / "nothing")) == frozenset()


def test_neither_a_link_nor_a_pipe_is_a_cluster(tmp_path: Path) -> None:
    control(tmp_path / "victim", 1)
    (tmp_path / "data/link").mkdir(parents=True)
    (tmp_path / "data/link/global").symlink_to(tmp_path / "victim/global")
    (tmp_path / "data/fifo/global").mkdir(parents=True)
    os.mkfifo(tmp_path / "data/fifo/global/pg_control")
    assert clusters(mounted(tmp_path / "data")) == frozenset()
