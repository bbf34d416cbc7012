"""Staging on a real host: PostgreSQL, a web server and an Immich-like stack run on last night's data, beside production.

The tests of this module share one host and run in their order.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from ipaddress import IPv4Network

import pytest

from host import Disks, Host
from host.machine import APPLIANCE_HOME, CHECKOUT, STACKS
from host.shell import run

pytestmark = pytest.mark.e2e

NIGHTLY = "/srv/containers/.nightly"
HAND_WRITTEN = "keycloak"
SLEEPER = {"image": "stackward-demo:latest", "pull_policy": "never", "init": True, "entrypoint": ["sleep", "inf"]}
# What production shares with the host and with others; it does not even run.
TIED = {
    "services": {
        "host": {**SLEEPER, "network_mode": "host", "container_name": "the-one"},
        "guest": {**SLEEPER, "networks": ["outer"], "devices": ["/dev/null:/dev/kmsg"], "volumes": ["cache:/cache"]},
    },
    "networks": {"outer": {"external": True, "name": "site_default"}},
    "volumes": {"cache": {}},
    "x-stackward": {"staging": {"enabled": True, "empty": "cache"}},
}
GREEDY = {
    "services": {"app": {**SLEEPER, "volumes": ["/:/host", "/var/run/docker.sock:/docker.sock", "others:/others"]}},
    "volumes": {"others": {"external": True, "name": "wiki_pages"}},
    "x-stackward": {"staging": {"enabled": True}},
}
# systemd writes its unit's name with a backslash.
DASHED = {"services": {"app": {**SLEEPER, "restart": "always"}}, "x-stackward": {"staging": {"enabled": True}}}
POLICIES = {
    "shop": {"enabled": True, "publish": "18432:db:5432", "services": "db", "env": "STAGE=staging"},
    "site": {"enabled": True, "publish": "18080:web:8080"},
    "photos": {"enabled": True, "publish": "18081:server:8080", "services": "server,database"},
}
STRAY = 1_000_000  # the number of an order that only staging has
PAGE = "curl -sf --max-time 3 http://127.0.0.1:18080/"
PRODUCTION = "docker ps --format '{{.ID}} {{.Names}}' | grep -v -- -staging- | sort"


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
    return {part["stack"]: part for part in done["stacks"]} | {"details": done["details"], "reasons": done["reasons"]}


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
    model = {
        "services": {
            "app": {**SLEEPER, "volumes": [f"/srv/containers/{HAND_WRITTEN}:/data"]},
            "staging": {**SLEEPER, "volumes": [f"{NIGHTLY}/{HAND_WRITTEN}:/data"]},
        },
        "x-stackward": {"staging": {"enabled": True, "service": "staging"}},
    }
    one.put(json.dumps(model), f"/opt/docker/{HAND_WRITTEN}/compose.yaml")
    one.put(json.dumps(TIED), "/opt/docker/tied/compose.yaml")
    one.put("tonight\n", f"/srv/containers/{HAND_WRITTEN}/note")
    for name, staging in POLICIES.items():
        policy(one, name, staging)
    ups = ("site", "photos server", f"{HAND_WRITTEN} app")
    jobs = [f"cd /opt/docker/{up.split()[0]} && docker compose up -d --wait {up.partition(' ')[2]}" for up in ups]
    with ThreadPoolExecutor() as pool:
        waited = [pool.submit(one.appliance_up, {"STACKWARD_SCHEDULE": "false"}), pool.submit(one.stacks_up, ["shop"])]
        waited += [pool.submit(one.run, job) for job in jobs]
        for job in waited:
            job.result()
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
    kinds = dict.fromkeys((*POLICIES, "tied"), "derived") | {HAND_WRITTEN: "by hand"}
    assert {name: one["kind"] for name, one in listed.items()} == kinds
    assert {one["data_at"] for one in listed.values()} == {None}
    assert all(one["containers"] == [] for one in listed.values())
    machine.run(f"test ! -e {NIGHTLY}")


def test_staging_answers_with_last_nights_rows(staged):
    last_night = orders(staged, "shop-staging-db-1")
    assert 0 < last_night <= orders(staged, "shop-db-1")
    assert sql(staged, "photos-staging-database-1", "SELECT count(*) FROM photo", "immich") == "42"
    assert staged.run(PAGE).stdout.encode() == staged.get("/opt/docker/site/data/index.html")


def test_a_hand_written_service_runs_as_it_is(staged):
    assert staged.run(f"docker exec {HAND_WRITTEN}-staging-1 cat /data/note").stdout == "tonight\n"


def test_the_list_says_how_each_is_and_of_when_its_data_is(staged):
    listed = {one["stack"]: one for one in staged.stackward_json("staging", "list")}
    assert {one["last_outcome"] for one in listed.values()} == {"ok"}
    assert {one["state"] for found in listed.values() for one in found["containers"]} == {"running"}
    (db,) = [one for one in listed["shop"]["containers"] if one["service"] == "db"]
    assert db["health"] == "healthy"
    at = datetime.fromisoformat(listed["shop"]["data_at"])
    assert 0 <= (datetime.now(UTC) - at).total_seconds() < 120


def test_a_port_is_open_where_productions_is(staged):
    """The database's is not published in production at all, the web server's at every address."""
    outside = staged.run("hostname -I").stdout.split()[0]
    staged.run(f"curl -sf --max-time 3 http://{outside}:18080/")
    listening = staged.run("ss -ltnH | awk '{print $4}' | grep 18432").stdout.split()
    assert listening == ["127.0.0.1:18432"]


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
    assert len(names) == 10  # six services, three proxies, one that is hand-written
    mounts = staged.run(f"docker inspect --format '{form}' {' '.join(names)}").stdout.split("\n")
    written = {line.split()[0] for line in mounts if line.endswith(" true")}
    written -= {"/var/lib/docker/volumes/tied-staging_cache/_data"}  # its own, which began empty
    assert written == {
        f"{NIGHTLY}/{path}" for path in ("shop/db", "site/data", "photos/library", "photos/postgres", HAND_WRITTEN)
    }


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


def test_what_ties_a_stack_to_the_host_and_to_others_is_not_in_its_instance(staged):
    """A network of the host's or of another project, a device, a name that there can be only one of."""
    shown = json.loads(staged.run("docker inspect tied-staging-host-1 tied-staging-guest-1").stdout)
    for one in shown:
        assert list(one["NetworkSettings"]["Networks"]) == [
            f"tied-staging_{'outer' if 'guest' in one['Name'] else 'default'}"
        ]
        assert not one["HostConfig"]["Devices"]
    notes = "\n".join(next(one for one in staged.stackward_json("staging", "list") if one["stack"] == "tied")["notes"])
    assert "devices are production's" in notes
    assert "network_mode: host" in notes


def test_no_mail_leaves_an_instance(staged):
    """Production has a mail server in its network, and its port is open on the host."""
    answers = "busybox nc -ll -p 25 -e echo 220-ready"
    run = "docker run -d --init --name mail --network site_default -p 25:25 --entrypoint sh stackward-demo:latest -c"
    staged.run(f"{run} '{answers}'")
    ask = "docker exec {} sh -c 'busybox nc -w 2 {} 25 </dev/null'"
    address = staged.run(
        "docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' mail"
    ).stdout.strip()
    outside = staged.run("hostname -I").stdout.split()[0]
    try:
        for target in ("mail", address, outside):
            staged.wait_until(f"{ask.format('site-web-1', target)} | grep -q 220", timeout=10, every=0.2)
            said = staged.run(ask.format("site-staging-web-1", target), check=False)
            assert "220" not in said.stdout, target
    finally:
        staged.run("docker rm -f mail")


def test_the_generated_file_is_roots_alone(staged):
    shown = staged.run("stat -c %a /var/lib/stackward/staging/shop/compose.yaml /var/lib/stackward/staging/shop").stdout
    assert shown.split() == ["600", "700"]


def test_the_next_night_it_has_the_new_rows_and_none_of_its_own(staged):
    before = orders(staged, "shop-staging-db-1")
    result = refreshed(staged)
    assert result["details"]["swap_seconds"] < 1
    assert orders(staged, "shop-staging-db-1") > before
    assert sql(staged, "shop-staging-db-1", f"SELECT count(*) FROM orders WHERE number = {STRAY}") == "0"
    assert staged.run(PAGE).stdout.encode() == staged.get("/opt/docker/site/data/index.html")
    staged.run("test ! -e /srv/containers/.nightly.new")


def test_a_broken_instance_fails_alone(staged):
    """One never becomes healthy; of two that want the same port one is refused, as is one that would have the host."""
    running = staged.run(PRODUCTION).stdout
    sick = {"test": ["CMD", "false"], "interval": "1s", "retries": 1}
    staged.put(json.dumps({"services": {"web": {"healthcheck": sick}}}), "/opt/docker/site/compose.staging.yaml")
    policy(staged, "site", POLICIES["site"] | {"wait": "4s"})
    policy(staged, "photos", POLICIES["photos"] | {"publish": "18432:server:8080"})
    staged.put(json.dumps(GREEDY), "/opt/docker/greedy/compose.yaml")
    try:
        result = refreshed(staged, good=False)
    finally:
        staged.run("rm -r /opt/docker/greedy")
        staged.run("rm /opt/docker/site/compose.staging.yaml")
        for name in ("site", "photos"):
            policy(staged, name, POLICIES[name])
    outcomes = {
        "shop": "failed",
        "site": "failed",
        "photos": "ok",
        "tied": "ok",
        "greedy": "failed",
        HAND_WRITTEN: "ok",
    }
    assert {name: result[name]["outcome"] for name in outcomes} == outcomes
    assert "port 127.0.0.1:18432" in result["shop"]["reasons"][0]
    assert "the instance of shop is to have, is taken by the instance of photos" in result["shop"]["reasons"][0]
    for reason, why in zip(
        result["greedy"]["reasons"], ("all of production", "Docker's socket", "has no copy"), strict=True
    ):
        assert why in reason
    assert "web is " in result["site"]["reasons"][0]
    assert "after 4 s" in result["site"]["reasons"][0]
    assert staged.run(PRODUCTION).stdout == running


@pytest.mark.parametrize("point", ["staging-stopped", "staging-swapped", "nightly-made"])
def test_killed_at(point, staged):
    """The next start of the appliance finds it, and starts last night's instances or tonight's."""
    refresh = f"docker exec -e STACKWARD_CRASH_POINT={point} stackward stackward staging refresh"
    assert staged.run(refresh, check=False).returncode == 137
    well = f"{PAGE} && docker exec shop-staging-db-1 pg_isready -q"
    # At the last point nothing has been stopped yet.
    assert (staged.run(well, check=False).returncode == 0) is (point == "nightly-made")
    staged.run(f"test -e {NIGHTLY}.new")
    staged.run("docker kill stackward && docker start stackward")
    nothing_left = f"! ls /var/lib/stackward/undo | grep json && test ! -e {NIGHTLY}.new"
    staged.wait_until(f"{well} && {nothing_left}", timeout=60, every=0.2)
    staged.wait_for_appliance()
    staged.run(f"test -e {NIGHTLY}/shop/db/PG_VERSION")


def test_instances_run_as_before_after_docker_was_restarted(staged):
    """The web server ends well when it is told to: no policy that is about failures would start it again."""
    refreshed(staged)
    running = "docker ps --format '{{.Names}}' | grep -E '^(shop|site|photos)-staging-' | sort"
    before = staged.run(running).stdout.split()
    assert len(before) == 7  # four services, three proxies
    staged.run("systemctl restart docker")
    staged.wait_for_appliance()
    staged.wait_until(f'test "$({running} | xargs)" = "{" ".join(before)}" && {PAGE}', timeout=90, every=0.5)


def subnets_of_instances(host: Host) -> list[IPv4Network]:
    asked = "docker network inspect --format '{{range .IPAM.Config}}{{.Subnet}} {{end}}' $(docker network ls -q -f name=-staging_)"
    return [IPv4Network(one) for one in host.run(asked).stdout.split()]


def test_instances_leave_dockers_own_subnets_to_production(staged):
    subnets = subnets_of_instances(staged)
    assert len(subnets) >= 7
    assert all(one.subnet_of(IPv4Network("198.19.0.0/17")) for one in subnets)


def test_instances_take_no_subnet_that_the_host_has_a_route_to(staged):
    staged.run("ip route add 198.19.0.0/18 dev lo")
    try:
        refreshed(staged)
        subnets = subnets_of_instances(staged)
        assert len(subnets) >= 7
        assert all(one.subnet_of(IPv4Network("198.19.64.0/18")) for one in subnets)
        before = staged.run("docker ps --format '{{.ID}} {{.Names}}' | grep -- -staging- | sort").stdout
        assert staged.stackward_json("staging", "up", "site")["outcome"] == "ok"
        assert staged.run("docker ps --format '{{.ID}} {{.Names}}' | grep -- -staging- | sort").stdout == before
    finally:
        staged.run("ip route del 198.19.0.0/18 dev lo")


def test_instances_are_units_where_the_host_has_them_and_users_units_follow(staged):
    staged.put(CHECKOUT / "host-units", f"{APPLIANCE_HOME}/host-units")
    staged.put(CHECKOUT / "image" / "logrotate.conf", f"{APPLIANCE_HOME}/image/logrotate.conf")
    staged.run(f"{APPLIANCE_HOME}/host-units/install")
    own = "[Unit]\nBindsTo=stackward-staging.target\nAfter=stackward-staging.target\n[Service]\nType=oneshot\n"
    own += "RemainAfterExit=yes\nExecStart=sh -c 'echo begun >>/root/mine'\nExecStop=sh -c 'echo ended >>/root/mine'\n"
    own += "[Install]\nWantedBy=stackward-staging.target\n"
    staged.put(own, "/etc/systemd/system/mine-staging.service")
    staged.run("systemctl daemon-reload && systemctl enable --now mine-staging.service stackward-staging.target")
    staged.put(json.dumps(DASHED), "/opt/docker/two-words/compose.yaml")
    refreshed(staged)
    unit = r"docker-compose-staging@two\x2dwords.service"
    assert staged.run(f"systemctl is-active '{unit}'").stdout.strip() == "active"
    states = "systemctl is-active docker-compose-staging@shop.service docker-compose-staging@photos.service mine-staging.service"
    assert staged.run(states).stdout.split() == ["active"] * 3
    assert staged.get("/root/mine").split() == [b"begun", b"ended", b"begun"]
    assert staged.run(PAGE).stdout.encode() == staged.get("/opt/docker/site/data/index.html")
    assert refreshed(staged)["reasons"] == []  # with the unit of a name with a dash to be stopped


def test_instances_run_as_before_after_the_host_was_shut_down_and_booted(staged):
    """Their units are told to stop then; nobody would start them before the next night."""
    running = "docker ps --format '{{.Names}}' | grep -E '^(shop|site|photos|two-words)-staging-' | sort"
    before = staged.run(running).stdout.split()
    assert len(before) == 8
    run(["docker", "stop", "--time=60", staged.name])
    run(["docker", "start", staged.name])
    staged.wait_for_appliance()
    staged.run("systemctl is-system-running --wait", check=False)  # degraded: photos wants a graphics card
    staged.wait_until(f'test "$({running} | xargs)" = "{" ".join(before)}" && {PAGE}', timeout=90, every=0.5)


def test_down_stops_instances_and_production_goes_on(staged):
    production = staged.run(PRODUCTION).stdout
    done = staged.stackward_json("staging", "down")
    assert (done["outcome"], done["reasons"]) == ("ok", [])
    assert {part["outcome"] for part in done["stacks"]} == {"ok"}
    units = "systemctl list-units --plain --no-legend --state=active,failed 'docker-compose-staging@*'"
    assert staged.run(units).stdout == ""
    left = staged.run("docker ps --format '{{.Names}}' | grep -- -staging-", check=False)
    assert left.stdout == ""
    assert staged.run(PRODUCTION).stdout == production


def test_up_starts_one_on_the_snapshot_that_there_is_and_logs_say_what_it_says(staged):
    data_at = staged.stackward_json("staging", "list")[0]["data_at"]
    assert staged.stackward_json("staging", "up", "photos")["outcome"] == "ok"
    assert sql(staged, "photos-staging-database-1", "SELECT count(*) FROM photo", "immich") == "42"
    running = staged.run("docker ps --format '{{.Names}}' | grep -- -staging-").stdout.split()
    assert all(name.startswith("photos-") for name in running)
    assert staged.stackward_json("staging", "list")[0]["data_at"] == data_at
    logs = staged.stackward_json("staging", "logs", "photos")["logs"]
    assert "ready to accept connections" in logs["photos-staging-database-1"]
