"""Drills on a real host: a backup is proven by booting it, and one that cannot work fails loudly and alone."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from host import Disks, Host

pytestmark = pytest.mark.e2e

STATE = "/var/lib/stackward"
PRODUCTION = "docker ps --format '{{.ID}} {{.Names}}' | sort"
DEBRIS = (
    f"docker ps -a --format '{{{{.Names}}}}' | grep -- -drill-; docker network ls --format '{{{{.Name}}}}' | grep drill;"
    f"docker volume ls -q | grep drill; ls -A /backup/docker | grep ^.incoming; ls -A {STATE}/drills/instances;"
    f"ls -A {STATE}/undo"
)


def policy(host: Host, stack: str, **more: object) -> None:
    host.put(json.dumps({"x-stackward": {"backup": True, **more}}), f"/opt/docker/{stack}/compose.override.yaml")


@pytest.fixture(scope="module")
def machine(host_run):
    """A host with three stacks that are backed up, on an ordinary disk and without a key on the host."""
    one = Host.start(host_run.id, Disks("btrfs:1024", "btrfs:2560"))
    one.run("mkdir -p /srv/containers/wiki-files")
    policy(one, "shop")
    with ThreadPoolExecutor() as pool:
        for job in (
            pool.submit(one.appliance_up, {"STACKWARD_SCHEDULE": "false"}),
            pool.submit(one.stacks_up, ["shop", "site", "wiki"]),
        ):
            job.result()
    one.stackward("init")
    recipient = one.stackward_json("init")["recipients"][0]
    one.put(f'STACKWARD_AGE_RECIPIENTS = ["{recipient}"]\n', "/etc/stackward/stackward.toml")
    one.stackward("backup")
    yield one
    one.destroy()


def assert_no_debris(host: Host) -> None:
    assert host.run(DEBRIS, check=False).stdout == ""


def test_a_drill_proves_the_shop_by_counting_its_rows(machine):
    running = machine.run(PRODUCTION).stdout
    done = machine.stackward_json("drill", check=False)
    assert done["outcome"] == "ok", done
    proofs = {stack: "\n".join(said) for stack, said in done["details"]["proofs"].items()}
    rows = int(proofs["shop"].partition("database shop: ")[2].split()[0])
    assert (
        0
        < rows
        <= int(machine.run("docker exec shop-db-1 psql -U postgres -d shop -qAtc 'SELECT count(*) FROM orders'").stdout)
    )
    assert "web:8080/ answers 200" in proofs["site"]
    assert "wiki: healthy" in proofs["wiki"]
    assert machine.run(PRODUCTION).stdout == running
    assert_no_debris(machine)


def test_what_was_proven_and_when_is_told(machine):
    shown = {one["stack"]: one for one in machine.stackward_json("drill", "--proofs")}
    assert {name: one["outcome"] for name, one in shown.items()} == dict.fromkeys(("shop", "site", "wiki"), "ok")
    at = shown["shop"]["proven_at"]
    data = next(one for one in machine.stackward_json("list") if one["kind"] == "data")
    assert data["booted_at"]["shop"] == at
    stacks = {one["stack"]: one for one in machine.stackward_json("status")["stacks"]}
    assert stacks["shop"]["booted_at"] == at
    assert stacks["shop"]["booted_from"] == data["name"]
    assert any("rows in" in proof for proof in stacks["shop"]["proofs"])
    told = machine.wait_until("curl -sS http://127.0.0.1:9466/metrics | grep '^stackward_drill_info.*shop'").stdout
    assert data["name"] in told


def test_the_backup_is_as_it_was(machine):
    assert machine.stackward_json("verify")["outcome"] == "ok"


def test_a_backup_that_cannot_work_fails_loudly_and_alone(machine):
    """Its checksums are right and the database starts; but a table of it was broken before it was backed up."""
    table = 'psql -U postgres -d shop -qAtc "CHECKPOINT" -c "SELECT pg_relation_filepath(\'orders\')"'
    path = machine.run(f"docker exec shop-db-1 {table}").stdout.strip()
    machine.run("cd /opt/docker/shop && docker compose stop && cp -a /srv/containers/shop/db /root/good")
    machine.run(f"head -c 8192 /dev/urandom | dd of=/srv/containers/shop/db/{path} conv=notrunc")
    machine.stackward("backup", "shop")
    assert machine.stackward_json("verify")["outcome"] == "ok"
    done = machine.stackward_json("drill", "shop", "wiki", check=False)
    parts = {part["stack"]: part for part in done["stacks"]}
    assert {name: part["outcome"] for name, part in parts.items()} == {"shop": "failed", "wiki": "ok"}
    assert done["exit_code"] == 1
    assert "invalid page in block 0" in parts["shop"]["reasons"][0]
    kept = parts["shop"]["reasons"][-1].partition("its logs are kept: ")[2]
    assert b"invalid page in block 0" in machine.get(kept)
    assert_no_debris(machine)
    proven = {one["stack"]: one for one in machine.stackward_json("drill", "--proofs")}["shop"]
    assert proven["outcome"] == "failed"
    assert proven["proven_at"] < proven["at"]
    machine.run("rm -r /srv/containers/shop/db && mv /root/good /srv/containers/shop/db")


def test_an_older_backup_can_be_proven_and_without_the_key_whose_secrets_it_used_is_said(machine):
    replaced = next(one["name"] for one in machine.stackward_json("list") if one["replaced"])
    machine.run("mv /etc/stackward/age.key /root/age.key")
    done = machine.stackward_json("drill", "shop", "--from", replaced)
    machine.run("mv /root/age.key /etc/stackward/age.key")
    (part,) = done["stacks"]
    assert (part["outcome"], part["artifact"]) == ("warn", replaced)
    assert "production's of now" in part["reasons"][0]
    assert "database shop" in "\n".join(done["details"]["proofs"]["shop"])


def test_a_stack_that_cannot_be_derived_is_skipped_with_the_reason(machine):
    model = {"services": {"app": {"image": "stackward-demo:latest", "pull_policy": "never", "entrypoint": ["sleep", "inf"],
             "init": True, "volumes": ["./data:/data", "/var/run/docker.sock:/var/run/docker.sock"]}}}  # fmt: skip
    machine.put(json.dumps({**model, "x-stackward": {"backup": True}}), "/opt/docker/portainer/compose.yaml")
    machine.run("mkdir /opt/docker/portainer/data && echo x >/opt/docker/portainer/data/x")
    machine.stackward("backup", "portainer")
    (part,) = machine.stackward_json("drill", "portainer")["stacks"]
    assert part["outcome"] == "skipped"
    assert "Docker's socket" in part["reasons"][0]
    assert_no_debris(machine)


def test_a_stack_without_data_is_proven_from_its_configuration_and_what_that_names_elsewhere(machine):
    web = {"image": "stackward-demo:latest", "pull_policy": "never", "command": ["web", "/site"], "init": True, "ports": ["8080"],
           "env_file": ["../common.env"], "volumes": ["../shared/site:/site:ro"]}  # fmt: skip
    machine.put(
        json.dumps({"services": {"web": web}, "x-stackward": {"backup": True}}), "/opt/docker/page/compose.yaml"
    )
    machine.run("mkdir -p /opt/docker/shared/site && echo hello >/opt/docker/shared/site/index.html")
    machine.put("WORD=secret\n", "/opt/docker/common.env")
    machine.stackward("backup", "--config")
    done = machine.stackward_json("drill", "page")
    (part,) = done["stacks"]
    assert (part["outcome"], part["artifact"][:8]) == ("ok", "configs-"), done
    assert any("web:8080/ answers 200" in proof for proof in done["details"]["proofs"]["page"])
    assert_no_debris(machine)


@pytest.mark.parametrize("point", ["drill-placed", "drill-started"])
def test_killed_at(point, machine):
    died = machine.run(f"docker exec -e STACKWARD_CRASH_POINT={point} stackward stackward drill wiki", check=False)
    assert died.returncode == 137
    assert machine.run(DEBRIS, check=False).stdout != ""
    machine.run("docker kill stackward && docker start stackward")
    machine.wait_until(f"! {{ {DEBRIS}; }} | grep .", timeout=60, every=0.2)


def test_after_a_kill_the_next_drill_is_as_good(machine):
    machine.wait_for_appliance()
    assert machine.stackward_json("drill", "wiki")["outcome"] == "ok"
    assert_no_debris(machine)


def test_what_the_stack_writes_into_a_database_that_was_made_anew_is_no_proof(machine):
    """Its data directory was emptied: database and writer are as well as ever, on other rows."""
    machine.run(
        "cd /opt/docker/shop && docker compose stop && mkdir /root/good && mv /srv/containers/shop/db/* /root/good"
    )
    machine.stackward("accept", "shop")
    machine.stackward("backup", "shop")
    done = machine.stackward_json("drill", "shop", check=False)
    (part,) = done["stacks"]
    assert part["outcome"] == "failed", done
    assert "made anew when it started, and the backup holds none" in part["reasons"][0]
    assert_no_debris(machine)
    machine.run(
        "mv /root/good/* /srv/containers/shop/db && rmdir /root/good && cd /opt/docker/shop && docker compose up -d"
    )
