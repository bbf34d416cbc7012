"""`stack convert` with the rights that the appliance has: a directory and a named volume go to the Btrfs volume and come back."""

from __future__ import annotations

import json

import pytest

from e2e import tiny

pytestmark = pytest.mark.e2e

MODEL = {
    "services": {
        "app": tiny.service("./data:/data", "files:/files", "/unnamed", labels={"stackward.backup": "true"}),
        "once": tiny.service("files:/files", entrypoint=["true"], restart="no"),
    },
    "volumes": {"files": {}},
}
# The one that has ended is made again, and not started again.
STATES = {"moved-app-1": "running", "moved-once-1": "created"}
FILES = "docker volume inspect -f '{{json .Options}}' moved_files"


@pytest.fixture
def moved(small):
    tiny.up(small, "moved", MODEL, {"data/file": "precious\n"})
    small.run("docker exec moved-app-1 sh -c 'echo written >/files/file; echo kept >/unnamed/file'")
    small.wait_until("docker ps -a --format '{{.Names}} {{.State}}' | grep -q 'moved-once-1 exited'", every=0.2)
    return small


def seen(host) -> list[str]:
    """What the stack has in its trees; beside them, an anonymous volume goes wherever its container goes."""
    assert host.run("docker exec moved-app-1 cat /unnamed/file").stdout == "kept\n"
    return host.run("docker exec moved-app-1 cat /data/file /files/file").stdout.split()


def goes_back_to_a_snapshot_and_forth(host) -> None:
    host.stackward("snapshot", "create", "before")
    host.run("docker exec moved-app-1 sh -c 'echo wrong >/data/file; rm /files/file'")
    changes = host.stackward_json("snapshot", "diff", "before")
    assert {"moved/data/file", "moved/moved_files/file"} <= set(tiny.said(changes).replace('"', " ").split())
    assert host.stackward_json("snapshot", "restore", "before", "moved")["outcome"] == "ok"
    assert seen(host) == ["precious", "written", "since"]
    host.stackward("restore", "moved", "--undo")
    assert host.run("docker exec moved-app-1 cat /data/file").stdout == "wrong\n"
    assert host.stackward_json("snapshot", "delete", "before")["outcome"] == "ok"
    assert tiny.states(host) == STATES


def test_a_stack_moves_to_the_volume_is_backed_up_from_there_and_comes_back(moved):
    done = moved.stackward_json("stack", "convert", "moved")
    assert done["outcome"] == "ok", done
    assert {one["tree"] for one in done["details"]["proofs"]} == {"data", "moved_files"}
    assert moved.run("readlink /opt/docker/moved/data").stdout.strip() == "/srv/containers/moved/data"
    device = json.loads(moved.run(FILES).stdout)["device"]
    assert device == "/srv/containers/moved/moved_files"
    assert tiny.states(moved) == STATES
    assert seen(moved) == ["precious", "written"]
    moved.run("docker exec moved-app-1 sh -c 'echo since >>/files/file'")
    assert "since" in moved.run(f"cat {device}/file").stdout
    part = tiny.by_stack(moved.stackward_json("backup"))["moved"]
    assert part["outcome"] == "ok"

    goes_back_to_a_snapshot_and_forth(moved)

    undone = moved.stackward_json("stack", "convert", "moved", "--undo")
    assert undone["outcome"] == "ok", undone
    assert moved.run(FILES).stdout.strip() in ("null", "{}")
    moved.run("test -d /opt/docker/moved/data && test ! -L /opt/docker/moved/data")
    assert tiny.states(moved) == STATES
    assert seen(moved) == ["precious", "written"]


def test_the_plug_is_pulled_while_a_volume_is_neither_the_old_nor_the_new(moved):
    killed = "docker exec -e STACKWARD_CRASH_POINT=convert-poured stackward stackward stack convert moved"
    died = moved.run(killed, check=False)
    assert died.returncode == 137
    moved.restart()
    moved.wait_for_appliance()
    moved.wait_until(f"! ls -A {tiny.STATE}/undo | grep -q json && docker exec moved-app-1 true", every=0.2)
    assert seen(moved) == ["precious", "written"]
    assert moved.stackward_json("stack", "convert", "moved")["outcome"] == "ok"
    assert moved.run("readlink /opt/docker/moved/data").stdout.strip() == "/srv/containers/moved/data"
    assert seen(moved) == ["precious", "written"]
