"""The jobs that look after the host, each run for real: what they find, and the trace that they leave on it.

The tests of this module share one host; each puts back what it changes.
"""

from __future__ import annotations

import json
from contextlib import contextmanager

import pytest

from host import Disks, Host
from host.machine import APPLIANCE_HOME, CHECKOUT

pytestmark = pytest.mark.e2e

SETTINGS = {
    "STACKWARD_SCHEDULE": "false",
    "STACKWARD_CHECKS": "site=http://host.docker.internal:8080/,wiki=container:wiki",
}
LOGS = "/var/log/ct-controller"


@pytest.fixture(scope="module")
def jobs_host(host_run):
    """Two stacks that run, one that never did, a stray container, the host bridge, and a unit that failed."""
    made = Host.start(host_run.id, Disks(volume="btrfs:256", backup="dir"))
    try:
        made.put(CHECKOUT / "host-units", f"{APPLIANCE_HOME}/host-units")
        made.put(CHECKOUT / "image", f"{APPLIANCE_HOME}/image")
        made.stacks_up(["site", "wiki", "archive"])
        made.appliance_up(SETTINGS)
        made.run(f"chmod +x {APPLIANCE_HOME}/host-units/* && {APPLIANCE_HOME}/host-units/install")
        made.run("systemd-run --unit broken --wait false", check=False)
        yield made
    finally:
        made.destroy()


def parts(document):
    return {part["stack"]: part["outcome"] for part in document["stacks"]}


def report(host, name):
    return json.loads(host.get(f"/var/log/{name}"))


@contextmanager
def a_stack(host, name, service):
    """A stack of one service, gone again afterwards."""
    compose = {"services": {"app": {"image": "stackward-demo:latest", "pull_policy": "never", **service}}}
    host.put(json.dumps(compose), f"/opt/docker/{name}/compose.yaml")
    host.run(f"cd /opt/docker/{name} && docker compose up -d --quiet-pull")
    try:
        yield
    finally:
        host.run(f"cd /opt/docker/{name} && docker compose down --timeout 1 && rm -r /opt/docker/{name}")


class TestHealth:
    def test_what_runs_is_fine_and_what_was_stopped_is_no_failure(self, jobs_host):
        found = jobs_host.stackward_json("health")
        assert parts(found) == {"archive": "skipped", "site": "ok", "wiki": "ok"}

    def test_a_container_that_restarts_in_a_loop_fails_its_stack(self, jobs_host):
        with a_stack(jobs_host, "crash", {"command": "false", "restart": "always"}):
            jobs_host.wait_until("[ $(docker inspect --format '{{.RestartCount}}' crash-app-1) -gt 2 ]")
            jobs_host.stackward("health", check=False)
            jobs_host.wait_until("[ $(docker inspect --format '{{.RestartCount}}' crash-app-1) -gt 5 ]")
            done = jobs_host.stackward("health", check=False)
        assert done.returncode == 1
        assert parts(json.loads(done.stdout)) == {"archive": "skipped", "site": "ok", "wiki": "ok", "crash": "failed"}

    def test_a_one_shot_that_fails_fails_its_stack_and_one_that_cannot_start_too(self, jobs_host):
        services = {"command": "sh -c 'exit 3'"}, {"command": "sleep 9", "devices": ["/dev/not-there:/dev/x"]}
        with a_stack(jobs_host, "once", services[0]):
            jobs_host.wait_until("docker inspect --format '{{.State.Status}}' once-app-1 | grep exited")
            (part,) = [p for p in jobs_host.stackward_json("health", check=False)["stacks"] if p["stack"] == "once"]
        assert part["reasons"] == ["once-app-1 ended with exit code 3"]
        compose = {"services": {"app": {"image": "stackward-demo:latest", **services[1]}}}
        jobs_host.put(json.dumps(compose), "/opt/docker/never/compose.yaml")
        jobs_host.run("cd /opt/docker/never && docker compose up -d", check=False)
        (part,) = [p for p in jobs_host.stackward_json("health", check=False)["stacks"] if p["stack"] == "never"]
        jobs_host.run("cd /opt/docker/never && docker compose down && rm -r /opt/docker/never")
        assert "could not be started" in part["reasons"][0]

    def test_a_stack_that_somebody_stops_is_no_failure(self, jobs_host):
        jobs_host.run("cd /opt/docker/wiki && docker compose stop --timeout 1")
        found = jobs_host.stackward_json("health")
        jobs_host.run("cd /opt/docker/wiki && docker compose start")
        assert parts(found)["wiki"] == "skipped"


def test_observability_asks_the_hosts_ports_and_containers(jobs_host):
    assert parts(jobs_host.stackward_json("observability")) == {"site": "ok", "wiki": "ok"}
    jobs_host.run("docker stop --time 1 site-web-1 wiki-wiki-1")
    try:
        done = jobs_host.stackward("observability", check=False)
    finally:
        jobs_host.run("docker start site-web-1 wiki-wiki-1")
    assert done.returncode == 1
    reasons = {part["stack"]: part["reasons"] for part in json.loads(done.stdout)["stacks"]}
    assert reasons == {
        "site": ["http://host.docker.internal:8080/: Connection refused"],
        "wiki": ["its container is stopped"],
    }
    jobs_host.wait_until("docker exec stackward stackward observability")


def test_audit_leaves_its_report_where_the_host_reads_it(jobs_host):
    jobs_host.run("mkdir -p /opt/docker/broken && echo 'services: [' >/opt/docker/broken/compose.yaml")
    try:
        done = jobs_host.stackward_json("audit")
    finally:
        jobs_host.run("rm -r /opt/docker/broken")
    assert (done["outcome"], done["details"]["file"]) == ("warn", "/var/log/docker-audit.json")
    found = report(jobs_host, "docker-audit.json")
    assert (found["format"], found["missing"]) == (1, [])
    (port,) = [one for one in found["ports"] if one["port"] == 8080 and one["address"] == "0.0.0.0"]
    assert (port["stack"], port["service"], port["reach"], port["listening"]) == ("site", "web", "all", True)
    assert port["programs"] == ["docker-proxy"]
    demo = next(image for image in found["images"] if image["image"] == "stackward-demo:latest")
    assert demo["age_days"] is not None
    assert {"site-web-1", "wiki-wiki-1"} <= set(demo["containers"])
    stacks = {stack["name"]: stack for stack in found["stacks"]}
    assert [stacks[name]["valid"] for name in ("site", "wiki", "broken")] == [True, True, False]
    covered = {tree["volume"] or tree["source"]: tree["covered"] for tree in stacks["wiki"]["trees"]}
    assert covered == {"wiki_pages": True, "/srv/containers/wiki-files": True}
    assert stacks["site"]["services"][0]["labels"] == {"stackward.backup": "true"}
    assert "CL-0005" in {remark["rule"] for remark in stacks["site"]["lint"]}
    assert stacks["broken"]["lint_errors"]
    assert jobs_host.run("stat -c %a /var/log/docker-audit.json").stdout == "640\n"


def test_host_report_leaves_its_report_where_the_host_reads_it(jobs_host):
    jobs_host.stackward("host-report")
    found = report(jobs_host, "docker-host.json")
    assert found["systemd"]["failed_units"] == ["broken.service"]
    assert found["host"] == jobs_host.run("hostname").stdout.strip()
    assert found["kernel"]["release"] == jobs_host.run("uname -r").stdout.strip()
    assert found["hardware"]["memory_bytes"]["total"] > 0
    assert found["docker"]["containers"]["running"] >= 3
    (btrfs,) = found["btrfs"]
    assert (btrfs["path"], btrfs["usage_bytes"]["size"]) == ("/srv/containers", 256 << 20)
    assert [device["write_io_errs"] for device in btrfs["devices"]] == [0]
    assert {space["path"] for space in found["filesystems"]} >= {"/opt/docker", "/srv/containers"}
    assert any("smartctl" in text for text in found["missing"])


def test_without_the_bridge_the_reports_say_what_they_could_not_see(jobs_host):
    jobs_host.run("systemctl stop stackward-host.socket")
    try:
        jobs_host.stackward("host-report")
        jobs_host.stackward("audit")
    finally:
        jobs_host.run("systemctl start stackward-host.socket")
    host, audit = report(jobs_host, "docker-host.json"), report(jobs_host, "docker-audit.json")
    assert host["disks"] == host["systemd"]["failed_units"] == "not readable here"
    assert {port["listening"] for port in audit["ports"]} == {None}
    assert "who listens on the host is not told" in audit["missing"][0]


def committed(host, name):
    """A new image of that name; the one that had it before loses it."""
    return host.run(f"docker commit --message {name} wiki-wiki-1 {name}").stdout.strip()


def test_docker_prune_keeps_what_a_way_back_needs(jobs_host):
    """The images of a backup and of an update, and what a stopped stack starts with; not what is nobody's."""
    needed, nobodys = committed(jobs_host, "old:1"), committed(jobs_host, "nobodys:1")
    rollback = committed(jobs_host, "stackward-rollback/old:1")
    committed(jobs_host, "nobodys:1")
    service = {"image": "old:1", "command": "sleep 99", "init": True, "volumes": ["./data:/d"]}
    with a_stack(jobs_host, "old", service | {"labels": {"stackward.backup": "true"}}):
        jobs_host.stackward("backup", "old")
        committed(jobs_host, "old:1")
        jobs_host.run("cd /opt/docker/old && docker compose up -d && cd ../wiki && docker compose stop --timeout 1")
        jobs_host.run("docker create --name stray stackward-demo:latest true && docker network create lonely")
        everything = "docker ps -aq | sort; docker images -aq --no-trunc | sort; docker network ls"
        before = jobs_host.run(everything).stdout
        plan = jobs_host.stackward_json("docker-prune", "--dry-run")["details"]["items"]
        assert jobs_host.run(everything).stdout == before
        done = jobs_host.stackward_json("docker-prune")
        images = jobs_host.run("docker images -aq --no-trunc").stdout
        jobs_host.run("cd /opt/docker/wiki && docker compose start")
    assert {item["name"]: item["keep"] for item in plan if item["kind"] == "container"} == {
        "archive-archive-1": True,
        "wiki-wiki-1": True,
        "stray": False,
    }
    assert done["details"]["removed"]["container"] == ["stray"]
    assert done["details"]["removed"]["network"] == ["lonely"]
    assert [image in images for image in (needed, rollback, nobodys)] == [True, True, False]
    jobs_host.run("docker rmi old:1 stackward-rollback/old:1 nobodys:1")


def test_rotate_logs_rotates_unless_the_host_does(jobs_host):
    jobs_host.stackward("run", "health", "--scheduled")
    jobs_host.stackward("run", "host-report")
    jobs_host.stackward("rotate-logs")
    age = r"sed -i -E 's/[0-9]{4}-[0-9]+-[0-9]+-[0-9:]+$/2026-1-1-0:0:0/' /var/lib/stackward/logrotate.status"
    jobs_host.run(age)
    rotated = jobs_host.stackward_json("rotate-logs")["details"]["rotated"]
    assert {"ct-controller/stackward.log", "docker-host.json"} <= set(rotated)
    report(jobs_host, "docker-host.json")
    jobs_host.stackward("run", "health", "--scheduled")
    jobs_host.run(age)
    jobs_host.stackward("rotate-logs")
    jobs_host.run(f"gzip -t {LOGS}/stackward.log.2.gz /var/log/docker-host.json.2.gz")
    jobs_host.run(f"{APPLIANCE_HOME}/host-units/install --logrotate")
    jobs_host.run(age)
    skipped = jobs_host.stackward_json("rotate-logs")
    assert (skipped["outcome"], skipped["reasons"]) == ("skipped", ["the host rotates them itself"])


def test_runs_leave_lines_of_json_in_the_log_and_a_full_disk_stops_none(jobs_host):
    jobs_host.stackward("run", "health", "--scheduled")
    lines = [json.loads(line) for line in jobs_host.run(f"cat {LOGS}/stackward.log").stdout.splitlines()]
    assert {"health begins", "health ended ok"} <= {line["message"] for line in lines}
    jobs_host.run(f"mount -t tmpfs -o size=4k full {LOGS} && cat /dev/zero >{LOGS}/stackward.log", check=False)
    try:
        jobs_host.stackward("run", "health", "--scheduled")
    finally:
        jobs_host.run(f"umount {LOGS}")


def test_a_report_that_cannot_be_written_fails_and_the_last_one_stays(jobs_host):
    jobs_host.stackward("audit")
    before = jobs_host.get("/var/log/docker-audit.json")
    jobs_host.run(
        "mount -t tmpfs -o size=64k full /mnt && cp /var/log/docker-audit.json /mnt && mount --bind /mnt /var/log"
    )
    jobs_host.run("cat /dev/zero >/var/log/filler", check=False)
    try:
        done = jobs_host.stackward("audit", check=False)
        assert jobs_host.get("/var/log/docker-audit.json") == before
    finally:
        jobs_host.run("umount /var/log /mnt")
    assert done.returncode == 1
    assert "cannot be written: No space left on device" in done.stdout
