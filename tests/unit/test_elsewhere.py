from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from stackward.core.errors import RefusedError
from stackward.steps.restore import elsewhere
from stackward.tools.filesystem import Mount


def _mount(point: str, kind: str) -> Mount:
    return Mount(Path(point), "0:1", "/", kind, kind, frozenset())


@pytest.fixture
def appliance(monkeypatch):
    """The mounts of the appliance on a host whose own root is an overlay, as that of a host in a container is."""
    table = tuple(
        _mount(*one)
        for one in (("/", "overlay"), ("/tmp", "tmpfs"), ("/opt/docker", "overlay"), ("/srv", "btrfs"), ("/x", "tmpfs"))
    )
    monkeypatch.setattr(elsewhere.filesystem, "mounts", lambda: table)


@pytest.mark.parametrize(
    ("to", "is_inside"),
    [("/look", True), ("/tmp/look", True), ("/opt/docker/look", False), ("/srv/look", False), ("/x/look", False)],
)
def test_what_stays_in_the_container_is_said(appliance, to, is_inside):
    assert bool(elsewhere.warning(Path(to))) is is_inside


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr(elsewhere.os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))
    with pytest.raises(RefusedError, match="cannot be written"):
        elsewhere.require_writable(tmp_path / "look")


def test_a_place_that_is_not_there_yet_is_fine(tmp_path):
    elsewhere.require_writable(tmp_path / "new" / "deeper")
