"""Staging on a real host: PostgreSQL, a web server and an Immich-like stack run on last night's data, beside production.

The tests of this module share one host and run in their order.
"""

from __future__ import annotations

import json
import time

import pytest

from host import Disks, Host
from host.machine import APPLIANCE_HOME, CHECKOUT, STACKS

pytestmark = pytest.mark.e2e

NIGHTLY = "/srv/containers/.nightly"
POLICIES = {
    "shop": {"enabled": True, "publish": "18432:db:5432", "services": "db", "env": "STAGE=staging"},
    "site": {"enabled": True, "publish": "18080:web:8080"},
    "photos": {"enabled": True, "publish": "18081:server:8080", "services": "server,database"},
}
STRAY = 1_000_000  # the number of an order that only staging has
PAGE = "curl -sf --max-time 3 http://127.0.0.1:18080/"


def policy(host: Host, stack: str, staging: dict) -> None:
    host.put(
        json.dumps({"x-stackward": {"backup": True, "staging": staging}}), f"/opt/docker/{stack}/compose.override.yaml"
    )


def sql(host: Host, container: str, statement: str, database: str = "shop") -> str:
    return host.run(f'docker exec {container} psql -U postgres -d {database} -qAtc "{statement}"').stdout.strip()


def orders(host: Host, container: str) -> int:
    return int(sql(host, container, "SELECT count(*) FROM orders"))


def refreshed(host: Host, *, good: bool = True) -> dict:
    """Rebuild, and return each stack's part of the result."""
    done = host.stackward_json("staging", "refresh", check=False)
    assert (done["outcome"] == "ok") is good, done
    return {part["stack"]: part for part in done["stacks"]} | {"details": done["details"]}


@pytest.fixture(scope="module")
def machine(host_run):
    """A host whose stacks have their data on the volume; the web server's by a symlink, as `stack convert` leaves it."""
    one = Host.start(host_run.id, Disks("btrfs:1024", "btrfs:1024"))
    for name in ("site", "photos"):
        one.put(STACKS / name, f"/opt/docker/{name}")
    one.run(
        "mkdir -p /srv/containers/site && mv /opt/docker/site/data /srv/containers/site/data"
        " && ln -s /srv/containers/site/data /opt/docker/site/data"
    )
    one.run("sed -i 's#=\\./#=/srv/containers/photos/#' /opt/docker/photos/.env /opt/docker/photos/stack.env")
    one.stacks_up(["shop"])
    one.run(
        "cd /opt/docker/site && docker compose up -d --wait & cd /opt/docker/photos && docker compose up -d --wait server; wait"
    )
    for name, staging in POLICIES.items():
        policy(one, name, staging)
    one.appliance_up({"STACKWARD_SCHEDULE": "false"})
    sql(one, "photos-database-1", "CREATE TABLE photo AS SELECT generate_series(1, 42) AS id", "immich")
    yield one
    one.destroy()


@pytest.fixture(scope="module")
def staged(machine):
    """The host after its first nightly rebuild."""
    refreshed(machine)
    return machine


def test_each_stack_is_derived_and_nothing_runs_before_it_is_asked_for(machine):
    listed = {one["stack"]: one for one in machine.stackward_json("staging", "list")}
    assert {name: one["kind"] for name, one in listed.items()} == dict.fromkeys(POLICIES, "derived")
    assert all(one["containers"] == [] for one in listed.values())
    machine.run(f"test ! -e {NIGHTLY}")


def test_staging_answers_with_last_nights_rows(staged):
    last_night = orders(staged, "shop-staging-db-1")
    assert 0 < last_night <= orders(staged, "shop-db-1")
    assert sql(staged, "photos-staging-database-1", "SELECT count(*) FROM photo", "immich") == "42"
    assert staged.run(PAGE).stdout.encode() == staged.get("/opt/docker/site/data/index.html")


def test_what_staging_writes_stays_in_staging(staged):
    before = staged.run("cd /srv/containers && find site photos/library -type f -exec sha256sum {} +").stdout
    sql(staged, "shop-staging-db-1", f"INSERT INTO orders (number) VALUES ({STRAY})")
    staged.run("docker exec site-staging-web-1 sh -c 'echo changed >/www/index.html; rm -r /www/img'")
    staged.run("docker exec photos-staging-server-1 sh -c 'echo new >/usr/src/app/upload/files/new.jpg'")
    assert sql(staged, "shop-db-1", f"SELECT count(*) FROM orders WHERE number = {STRAY}") == "0"
    assert staged.run("cd /srv/containers && find site photos/library -type f -exec sha256sum {} +").stdout == before


def test_every_mount_of_an_instance_is_from_the_snapshot(staged):
    form = "{{range .Mounts}}{{.Source}} {{.RW}}\n{{end}}"
    names = staged.run("docker ps --format '{{.Names}}' | grep -- -staging-").stdout.split()
    assert len(names) == 7  # four services, three proxies
    mounts = staged.run(f"docker inspect --format '{form}' {' '.join(names)}").stdout.split("\n")
    written = {line.split()[0] for line in mounts if line.endswith(" true")}
    assert written == {f"{NIGHTLY}/{path}" for path in ("shop/db", "site/data", "photos/library", "photos/postgres")}


def test_nothing_of_production_can_be_reached_from_an_instance(staged):
    """Neither by name, nor by address, nor over a port that the host publishes, nor the world."""
    address = "docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}'"
    gateway = "docker network inspect --format '{{range .IPAM.Config}}{{.Gateway}}{{end}}' site-staging_default"
    production = staged.run(f"{address} site-web-1").stdout.strip()
    own = staged.run(gateway).stdout.strip()
    outside = staged.run("hostname -I").stdout.split()[0]
    for target in (production, own, outside, "172.17.0.1", "site-web-1", "shop-db-1"):
        tried = staged.run(f"docker exec site-staging-web-1 busybox wget -T 2 -qO- http://{target}:8080/", check=False)
        assert tried.returncode != 0, target
    # The same question, asked where there is an answer.
    staged.run("docker exec site-staging-web-1 busybox wget -T 2 -qO- http://web:8080/")
    staged.run(f"curl -sf --max-time 2 http://{outside}:8080/")


def test_the_generated_file_is_roots_alone(staged):
    shown = staged.run("stat -c %a /var/lib/stackward/staging/shop/compose.yaml /var/lib/stackward/staging/shop").stdout
    assert shown.split() == ["600", "700"]


def test_the_next_night_it_has_the_new_rows_and_none_of_its_own(staged):
    before = orders(staged, "shop-staging-db-1")
    time.sleep(1)
    result = refreshed(staged)
    assert result["details"]["swap_seconds"] < 1
    assert orders(staged, "shop-staging-db-1") > before
    assert sql(staged, "shop-staging-db-1", f"SELECT count(*) FROM orders WHERE number = {STRAY}") == "0"
    assert staged.run(PAGE).stdout.encode() == staged.get("/opt/docker/site/data/index.html")
    staged.run("test ! -e /srv/containers/.nightly.new")


def test_a_broken_instance_fails_alone(staged):
    running = staged.run("docker ps --format '{{.ID}} {{.Names}}' | grep -v -- -staging- | sort").stdout
    staged.put("services: {web: {command: [nothing-like-this]}}", "/opt/docker/site/compose.staging.yaml")
    policy(staged, "photos", {"enabled": True, "publish": "18432:server:8080", "services": "server,database"})
    try:
        result = refreshed(staged, good=False)
    finally:
        staged.run("rm /opt/docker/site/compose.staging.yaml")
        policy(staged, "photos", POLICIES["photos"])
    assert {name: result[name]["outcome"] for name in POLICIES} == {"shop": "failed", "site": "failed", "photos": "ok"}
    assert "port 18432 is taken by the instance of photos" in result["shop"]["reasons"][0]
    assert "web" in result["site"]["reasons"][0]
    assert staged.run("docker ps --format '{{.ID}} {{.Names}}' | grep -v -- -staging- | sort").stdout == running


@pytest.mark.parametrize("point", ["nightly-made", "staging-stopped", "nightly-swapped", "staging-swapped"])
def test_killed_at(point, staged):
    refresh = "docker exec -e STACKWARD_CRASH_POINT={} stackward stackward staging {}"
    if point == "nightly-made":
        refreshed(staged)  # the test before left two that do not run
    assert staged.run(refresh.format(point, "refresh"), check=False).returncode == 137
    staged.wait_until(f"{PAGE} && docker exec shop-staging-db-1 pg_isready -q", timeout=30)
    staged.run(f"test -e {NIGHTLY}/shop/db/PG_VERSION")


def test_instances_are_units_where_the_host_has_them_and_users_units_follow(staged):
    refreshed(staged)
    staged.put(CHECKOUT / "host-units", f"{APPLIANCE_HOME}/host-units")
    staged.put(CHECKOUT / "image" / "logrotate.conf", f"{APPLIANCE_HOME}/image/logrotate.conf")
    staged.run(f"{APPLIANCE_HOME}/host-units/install")
    own = "[Unit]\nBindsTo=stackward-staging.target\nAfter=stackward-staging.target\n[Service]\nType=oneshot\n"
    own += "RemainAfterExit=yes\nExecStart=sh -c 'echo begun >>/root/mine'\nExecStop=sh -c 'echo ended >>/root/mine'\n"
    own += "[Install]\nWantedBy=stackward-staging.target\n"
    staged.put(own, "/etc/systemd/system/mine-staging.service")
    staged.run("systemctl daemon-reload && systemctl enable --now mine-staging.service stackward-staging.target")
    refreshed(staged)
    refreshed(staged)
    states = "systemctl is-active docker-compose-staging@shop.service docker-compose-staging@photos.service mine-staging.service"
    assert staged.run(states).stdout.split() == ["active"] * 3
    assert staged.get("/root/mine").split() == [b"begun", b"ended"] * 2 + [b"begun"]
    assert staged.run(PAGE).stdout.encode() == staged.get("/opt/docker/site/data/index.html")


def test_a_hand_written_service_runs_as_it_is(staged):
    model = {"services": {"app": {"image": "stackward-demo:latest", "pull_policy": "never", "init": True,
             "entrypoint": ["sleep", "inf"], "volumes": ["/srv/containers/keycloak:/data"]}}}  # fmt: skip
    own = {**model["services"]["app"], "volumes": [f"{NIGHTLY}/keycloak:/data"]}
    model["services"]["staging"] = own
    model["x-stackward"] = {"staging": {"enabled": True, "service": "staging"}}
    staged.run("mkdir /srv/containers/keycloak && echo tonight >/srv/containers/keycloak/note")
    staged.put(json.dumps(model), "/opt/docker/keycloak/compose.yaml")
    staged.run("cd /opt/docker/keycloak && docker compose up -d app")
    assert refreshed(staged)["keycloak"]["outcome"] == "ok"
    assert staged.run("docker exec keycloak-staging-1 cat /data/note").stdout == "tonight\n"


def test_down_stops_instances_and_production_goes_on(staged):
    production = staged.run("docker ps --format '{{.ID}} {{.Names}}' | grep -v -- -staging- | sort").stdout
    assert staged.stackward_json("staging", "down")["outcome"] == "ok"
    assert staged.run("docker ps -a --format '{{.Names}}' | grep -- -staging-[a-z]", check=False).stdout == ""
    assert staged.run("docker ps --format '{{.ID}} {{.Names}}' | grep -v -- -staging- | sort").stdout == production
