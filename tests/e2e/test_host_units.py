"""The host units on a real systemd: installed, used through the bridge, rebooted, removed, and put in a seed's place.

The tests of this module share one host and run in their order; each leaves its stacks running.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import time
from dataclasses import dataclass

import pytest

from host import CommandError, Disks, Host
from host.machine import APPLIANCE_HOME, CHECKOUT
from host.shell import run

pytestmark = pytest.mark.e2e

INSTALL = f"{APPLIANCE_HOME}/host-units/install"
STAGED = "/var/lib/stackward/staging/plain/compose.yaml"
OWN_STATE = "/etc/stackward/host-units"
SERVICE = """
services:
  app:
    image: {image}
    pull_policy: never
    command: wiki /data
    init: true
    restart: unless-stopped
    stop_grace_period: 1s
    labels: {labels}
    volumes: [./data:/data]
    ports: {ports}
"""
# Stacks of every kind of name; `telemetry` is infrastructure by its label, `monitoring` by its name.
APPS = ("plain", "my-app", "Odd näme; $(touch pwned)")
INFRA = ("monitoring", "telemetry")
SEED_TEMPLATE = """
[Unit]
Description=%i stack
Requires=docker.service
After=docker.service

[Service]
Type=oneshot
RemainAfterExit=true
WorkingDirectory=/opt/docker/%i
ExecStart=/usr/bin/docker compose up -d
ExecStop=/usr/bin/docker compose stop

[Install]
WantedBy=multi-user.target
"""


def compose(name: str = "x", *, image: str = "stackward-demo:latest", labels: str = "{}") -> str:
    project = re.sub("[^a-z0-9]", "", name.lower()) or "x"
    ports = '["127.0.0.1:8123:8080"]' if name == "plain" else "[]"
    return f"name: {project}\n{SERVICE.format(image=image, labels=labels, ports=ports)}"


def unit(stack: str) -> str:
    """The name of a stack's unit, escaped by this file alone."""
    plain = re.compile(rb"[A-Za-z0-9:_.]")
    escaped = "".join(chr(b) if plain.match(bytes([b])) else f"\\x{b:02x}" for b in stack.encode())
    return f"docker-compose@{escaped}.service"


@dataclass(frozen=True)
class Installed:
    host: Host
    said: str
    running_before: dict[str, str]
    running_after: dict[str, str]


@pytest.fixture(scope="module")
def machine(host_run):
    """A host with stacks that run, one that does not, and the appliance; no units yet."""
    one = Host.start(host_run.id, Disks("btrfs:256", "dir"))
    for name in (*APPS, *INFRA, "idle"):
        labels = "{stackward.tier: infra}" if name == "telemetry" else "{}"
        one.put(compose(name, labels=labels), f"/opt/docker/{name}/compose.yaml")
    one.run("mkdir -p /opt/docker/scripts /opt/docker/lost+found")
    up = "".join(f"(cd {shlex.quote(f'/opt/docker/{name}')} && docker compose up -d)&\n" for name in (*APPS, *INFRA))
    one.run(f"{up}wait")
    one.put(CHECKOUT / "host-units", f"{APPLIANCE_HOME}/host-units")
    one.put(CHECKOUT / "image" / "logrotate.conf", f"{APPLIANCE_HOME}/image/logrotate.conf")
    one.appliance_up()
    yield one
    one.destroy()


@pytest.fixture(scope="module")
def before(machine):
    """What the host was like before anything was installed."""
    return traces(machine)


@pytest.fixture(scope="module")
def units(machine, before):
    """The host with its units installed, and what was seen of that."""
    running = started(machine)
    said = machine.run(f"{INSTALL} --logrotate").stdout
    return Installed(machine, said, running, started(machine))


def traces(host: Host) -> set[str]:
    """Everything that an installation could touch: files and their content, links and where they point, directories."""
    skipped = rf"\( -path {OWN_STATE} -o -path /etc/hosts \) -prune"
    printed = r"-o -type l -printf '%p -> %l\n' -o -type d -printf '%p/\n'"
    find = rf"find /etc /usr/local /run/systemd/system {skipped} -o -type f -exec sha256sum {{}} + {printed}"
    return set(host.run(find).stdout.splitlines())


def started(host: Host) -> dict[str, str]:
    """Each running container's name and when it was started: the same as long as nobody touches it."""
    lines = host.run("docker inspect --format '{{.Name}} {{.State.StartedAt}}' $(docker ps -q)").stdout.splitlines()
    return dict(line.split() for line in lines)


def ask(host: Host, script: str) -> str:
    """Run Python in the appliance, with `ask(bytes)` to send raw bytes to the bridge and get all it says."""
    client = """
import contextlib, socket, sys
def connected():
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(60)
    connection.connect("/run/stackward/host.sock")
    return connection
def received(connection):
    said = b""
    with contextlib.suppress(OSError):
        while chunk := connection.recv(65536):
            said += chunk
    return said.decode(errors="replace")
def ask(request):
    with connected() as connection:
        with contextlib.suppress(OSError):
            connection.sendall(request)
        return received(connection)
"""
    return host.run("docker exec -i stackward python -", input=client + script).stdout


def journal(host: Host) -> str:
    """What the bridge wrote into the journal."""
    return host.run("journalctl --sync; journalctl --quiet --output=cat --identifier=stackward-host").stdout


def test_shell_scripts_pass_shellcheck():
    candidates = [file for top in ("host-units", "image", "tests/host", ".ci") for file in (CHECKOUT / top).rglob("*")]
    scripts = [file for file in candidates if file.is_file() and re.match(rb"#!/bin/(ba)?sh", file.read_bytes()[:16])]
    assert {"install", "bridge", "stackward", "entrypoint"} <= {file.name for file in scripts}
    assert shutil.which("shellcheck"), "`python3 -m tests.host tools` installs it"
    done = run(["shellcheck", "--severity=warning", *map(str, scripts)], check=False)
    assert done.stdout + done.stderr == ""


def test_a_dry_run_says_everything_and_changes_nothing(machine, before):
    running = started(machine)
    said = machine.run(f"{INSTALL} --dry-run --adopt --logrotate").stdout
    assert "create    /etc/systemd/system/docker-compose@.service" in said
    assert f"enable    {unit('my-app')}" in said
    assert "set       STACKWARD_BACKUP_DEFAULT = true in /etc/stackward/stackward.toml" in said
    assert traces(machine) == before
    assert started(machine) == running
    machine.run(f"test ! -e {OWN_STATE}")


def test_installing_starts_and_stops_no_container(units):
    assert units.running_after == units.running_before


def test_what_runs_is_enabled_and_what_does_not_run_is_left(units):
    for stack in (*APPS, *INFRA):
        states = f"systemctl is-enabled {shlex.quote(unit(stack))}; systemctl is-active {shlex.quote(unit(stack))}"
        assert units.host.run(states).stdout.split() == ["enabled", "active"]
    assert "idle does not run: its unit is not enabled" in units.said
    assert units.host.run(f"systemctl is-enabled {unit('idle')}", check=False).stdout.strip() == "disabled"
    assert not re.search("scripts|lost.*found", units.said)


def test_tiers_come_from_labels_and_names(units):
    after = units.host.run("cd /etc/systemd/system && ls -d docker-compose@*.service.d/*").stdout.splitlines()
    of = dict(line.rsplit("/", 1) for line in after)
    assert of[f"{unit('telemetry')}.d"] == of[f"{unit('monitoring')}.d"] == "in-infra.conf"
    assert {of[f"{unit(app)}.d"] for app in (*APPS, "idle")} == {"after-infra.conf"}


def test_units_are_valid_to_systemd(units):
    files = "/etc/systemd/system/stackward-host.socket /etc/systemd/system/*stackward*.target"
    instances = " ".join(shlex.quote(one) for one in (unit("plain"), unit("monitoring"), "stackward-host@1.service"))
    staging = "docker-compose-staging@plain.service docker-compose-infra.target"
    done = units.host.run(f"systemd-analyze verify --man=no {files} {instances} {staging}", check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_installing_again_does_nothing(units):
    installed, running = traces(units.host), started(units.host)
    said = units.host.run(f"{INSTALL} --logrotate").stdout
    assert said.splitlines()[-1] == "nothing to do"
    assert "create" not in said
    assert (traces(units.host), started(units.host)) == (installed, running)


def test_a_unit_that_was_changed_is_replaced_and_the_difference_shown(units):
    path = "/etc/systemd/system/docker-compose@.service"
    installed = traces(units.host)
    units.host.run(f"sed -i s/15min/1min/ {path}")
    for option in ("--dry-run", ""):
        said = units.host.run(f"{INSTALL} {option}").stdout
        assert f"replace   {path}" in said
        assert "    | -TimeoutStartSec=1min" in said
        assert "    | +TimeoutStartSec=15min" in said
    assert traces(units.host) == installed


def test_a_stack_that_changes_its_tier_changes_its_drop_in(units):
    installed = traces(units.host)
    path = "/opt/docker/plain/compose.yaml"
    units.host.put(f"x-stackward: {{tier: infra}}\n{compose('plain')}", path)
    said = units.host.run(INSTALL).stdout
    assert "remove    /etc/systemd/system/docker-compose@plain.service.d/after-infra.conf" in said
    assert (
        "docker-compose@plain.service" in units.host.run("systemctl show -p Wants docker-compose-infra.target").stdout
    )
    units.host.put(compose("plain"), path)
    units.host.run(INSTALL)
    assert traces(units.host) == installed


def test_the_wrapper_is_the_command_line(units):
    assert json.loads(units.host.run("stackward host ping").stdout)["docker_root"] == "/opt/docker"
    assert units.host.run("stackward frobnicate", check=False).returncode == 2
    assert units.host.run("echo words | stackward --version").stdout.startswith("stackward ")


def test_a_stack_restarts_through_systemd_from_inside_the_appliance(units):
    for stack in APPS[1:]:
        running = started(units.host)
        done = units.host.stackward_json("host", "restart", stack)
        assert (done["through"], done["state"]) == ("systemd", "active")
        touched = dict(started(units.host).items() ^ running.items())
        assert list(touched) == [f"/{compose(stack).split()[1]}-app-1"]
    assert f"restart {unit('my-app')}: done" in journal(units.host)
    units.host.run("test ! -e /pwned && test ! -e /root/pwned")


def test_start_stop_and_show_go_through_the_unit(units):
    assert units.host.stackward_json("host", "stop", "my-app")["state"] == "inactive"
    assert "/myapp-app-1" not in started(units.host)
    shown = units.host.stackward_json("host", "show", "my-app")
    assert (shown["active"], shown["enabled"], shown["name"]) == ("inactive", "enabled", unit("my-app"))
    assert units.host.stackward_json("host", "start", "my-app")["state"] == "active"
    assert "/myapp-app-1" in started(units.host)


def test_start_brings_up_what_systemd_takes_for_started(units):
    units.host.run("docker stop -t 1 plain-app-1")
    assert units.host.stackward_json("host", "start", "plain")["through"] == "systemd"
    assert "/plain-app-1" in started(units.host)


def test_stop_stops_what_was_started_without_its_unit(units):
    units.host.run("systemctl stop docker-compose@plain.service && cd /opt/docker/plain && docker compose start")
    done = units.host.stackward_json("host", "stop", "plain")
    assert done["notes"] == ["it ran although docker-compose@plain.service was not started"]
    assert "/plain-app-1" not in started(units.host)
    units.host.run("systemctl start docker-compose@plain.service")


def test_a_target_waits_for_its_stacks(units):
    running = started(units.host)
    said = ask(units.host, 'print(ask(b"restart docker-compose-infra.target\\n"))')
    assert said.strip() == "ok active"
    restarted = {name for name, _ in started(units.host).items() - running.items()}
    assert restarted == {"/monitoring-app-1", "/telemetry-app-1"}


def test_staging_instances_go_down_with_their_target_before_it_counts_as_stopped(units):
    """One that is derived, and a hand-written one that attaches as the seed's did."""
    host = units.host
    host.put(compose("plain").replace("name: plain", "name: plain-staging").replace("8123", "8124"), STAGED)
    mine = "BindsTo=stackward-staging.target\nAfter=stackward-staging.target"
    host.put(
        f"[Unit]\n{mine}\n[Service]\nExecStart=sleep infinity\nExecStopPost=sleep 1\n"
        "[Install]\nWantedBy=stackward-staging.target\n",
        "/etc/systemd/system/my-staging.service",
    )
    host.run("systemctl enable docker-compose-staging@plain.service my-staging.service")
    both = "systemctl is-active docker-compose-staging@plain.service my-staging.service"
    try:
        for verb, state in (("start", "active"), ("restart", "active"), ("stop", "inactive")):
            assert ask(host, f'print(ask(b"{verb} stackward-staging.target\\n"))').strip() == f"ok {state}"
            assert host.run(both, check=False).stdout.split() == [state, state]
            assert ("/plain-staging-app-1" in started(host)) == (state == "active")
        assert ask(host, 'print(ask(b"show docker-compose-staging@plain.service\\n"))').endswith("ok inactive\n\n")
        without_file = "systemctl start docker-compose-staging@idle.service"
        assert "Assertion failed" in host.run(without_file, check=False).stderr
    finally:
        host.run("systemctl disable docker-compose-staging@plain.service my-staging.service")
        host.run(f"rm /etc/systemd/system/my-staging.service; docker rm -f plain-staging-app-1; rm {STAGED}")
        host.run("systemctl daemon-reload; systemctl start stackward-staging.target")


def test_a_unit_that_fails_says_why(units):
    units.host.put(compose("plain", image="no-such-image:1"), "/opt/docker/plain/compose.yaml")
    done = units.host.stackward("host", "restart", "plain", check=False)
    assert done.returncode == 1
    assert "docker-compose@plain.service is failed" in done.stderr
    assert "no-such-image:1" in "\n".join(json.loads(done.stdout)["said"])
    facts = units.host.stackward_json("host", "facts")
    assert facts["failed_units"] == ["docker-compose@plain.service"]
    units.host.put(compose("plain"), "/opt/docker/plain/compose.yaml")
    assert units.host.stackward_json("host", "start", "plain")["state"] == "active"


def test_facts_name_listeners_and_disks(units):
    facts = units.host.stackward_json("host", "facts")
    listener = {"protocol": "tcp", "address": "127.0.0.1", "port": 8123, "programs": ["docker-proxy"]}
    assert listener in facts["listeners"]
    assert "/srv/containers" in json.dumps(facts["disks"])
    assert facts["missing"] == ["smartctl"]


# What is sent (as Python would write it), and why it is refused.
BAD = {
    "empty": (r"b'\n'", "no such request"),
    "unknown verb": (r"b'reboot\n'", "no such request"),
    "dangerous verb": (r"b'kill docker-compose@plain.service\n'", "no such request"),
    "unit outside the list": (r"b'stop docker.service\n'", "no such unit"),
    "no unit": (r"b'stop\n'", "no such request"),
    "option": (r"b'stop --all\n'", "no such unit"),
    "second unit": (r"b'stop docker-compose@plain.service docker.service\n'", "it is no verb and a unit"),
    "unknown stack": (r"b'stop docker-compose@nothing.service\n'", "no such stack"),
    "directory without a stack": (r"b'stop docker-compose@scripts.service\n'", "no such stack"),
    "template": (r"b'stop docker-compose@.service\n'", "no such stack"),
    "pattern": (r"b'stop docker-compose@*.service\n'", "there are characters in it"),
    "parent": (r"b'stop docker-compose@../plain.service\n'", "there are characters in it"),
    "escaped parent": (r"b'stop docker-compose@..\\x2fplain.service\n'", "no such stack"),
    "not as systemd escapes it": (r"b'stop docker-compose@my-app.service\n'", "no such stack"),
    "semicolon": (r"b'ping;reboot\n'", "there are characters in it"),
    "substitution": (r"b'show $(touch${IFS}/root/pwned)\n'", "there are characters in it"),
    "backticks": (r"b'show `reboot`\n'", "there are characters in it"),
    "two lines": (r"b'ping\nstop docker-compose@plain.service\n'", "more than one line"),
    "carriage return": (r"b'ping\r\n'", "there are characters in it"),
    "NUL": (r"b'pi\0ng\n'", "there are characters in it"),
    "bytes": (r"b'\xff\xfe\n'", "there are characters in it"),
    "a long line": (r"b'p' * 2000 + b'\n'", "the line is too long"),
    "10 MB": (r"b'p' * 10_000_000 + b'\n'", "the line is too long"),
    "10 MB without an end": ("b'p' * 10_000_000", "the line is too long"),
    "half a line": ("b'ping'", "no whole line came"),
    "silence": ("b''", "no whole line came"),
}


def test_bad_requests_and_silence_are_refused_journaled_and_harmless(units):
    running, logged = started(units.host), journal(units.host).count("refused (")
    requests = "[" + ", ".join(request for request, _ in BAD.values()) + "]"
    script = f"""
import json, time
begun = time.monotonic()
connections = [(connected(), request) for request in {requests}]
for connection, request in connections:
    with contextlib.suppress(OSError):
        connection.sendall(request)
answers = [received(connection) for connection, _ in connections]
print(json.dumps([time.monotonic() - begun, *answers]))
"""
    seconds, *said = json.loads(ask(units.host, script))
    for (name, (_, why)), answer in zip(BAD.items(), said, strict=True):
        assert answer.startswith(f"error refused: {why}"), (name, answer)
        assert answer.count("\n") == 1
    assert seconds < 20
    assert journal(units.host).count("refused (") == logged + len(BAD)
    assert started(units.host) == running
    assert units.host.run("systemctl is-system-running").stdout.strip() == "running"
    units.host.run("test ! -e /root/pwned")
    units.host.stackward("host", "ping")


def test_a_hundred_connections_at_once_do_no_harm(units):
    script = """
connections = [connected() for _ in range(100)]
for connection in connections:
    with contextlib.suppress(OSError):
        connection.sendall(b"show docker-compose@plain.service\\n")
answers = [received(connection) for connection in connections]
assert all(answer == "" or answer.endswith("ok active\\n") for answer in answers), answers
print(sum(bool(answer) for answer in answers))
"""
    assert int(ask(units.host, script)) >= 32
    units.host.stackward("host", "ping")
    assert units.host.run("systemctl is-active stackward-host.socket").stdout.strip() == "active"


def test_a_start_waits_for_a_docker_that_is_slow(units):
    units.host.run("systemctl stop docker-compose@plain.service")
    frozen = "pid=$(pidof dockerd); kill -STOP $pid; (sleep 2; kill -CONT $pid)& "
    began = time.monotonic()
    units.host.run(f"{frozen}systemctl start docker-compose@plain.service")
    assert time.monotonic() - began > 1.8
    assert "/plain-app-1" in started(units.host)


def test_without_the_bridge_compose_does_it_and_says_so(units):
    units.host.run("systemctl stop stackward-host.socket")
    try:
        running = started(units.host)
        done = units.host.stackward_json("host", "restart", "plain")
        assert (done["through"], done["state"]) == ("docker compose", "active")
        assert "does not answer" in done["notes"][0]
        assert {name for name, _ in started(units.host).items() - running.items()} == {"/plain-app-1"}
        assert units.host.stackward("host", "show", "plain", check=False).returncode == 1
    finally:
        units.host.run("systemctl start stackward-host.socket")
    assert "the host bridge answers" in units.host.stackward("check", check=False).stdout


def test_the_appliance_restarts_itself_through_the_bridge_only(units):
    """As a stack beside the others, below DOCKER_ROOT."""
    own = "/opt/docker/stackward"
    units.host.run(
        f"docker rm -f stackward && mkdir {own} && cp {APPLIANCE_HOME}/compose.yaml {APPLIANCE_HOME}/.env {own}"
    )
    units.host.run(f"cd {own} && docker compose up -d --quiet-pull")
    units.host.wait_until("docker exec stackward stackward-healthcheck", every=0.2)
    assert "enable    docker-compose@stackward.service" in units.host.run(INSTALL).stdout

    units.host.run("systemctl stop stackward-host.socket")
    assert "the host bridge is not installed" in units.host.stackward("check", check=False).stdout
    assert units.host.stackward("host", "restart", "stackward", check=False).returncode == 4
    units.host.run("systemctl start stackward-host.socket")

    since = started(units.host)["/stackward"]
    assert units.host.stackward_json("host", "restart", "stackward")["state"] == "queued"
    units.host.wait_until(f"docker inspect -f '{{{{.State.StartedAt}}}}' stackward | grep -v {since}")
    units.host.wait_until("docker exec stackward stackward-healthcheck", every=0.2)


def test_after_a_reboot_infrastructure_comes_up_first(units):
    """Also with a Docker that is slow to start, and a stack that cannot."""
    host = units.host
    host.run("mkdir -p /etc/systemd/system/docker.service.d")
    host.put("[Service]\nExecStartPre=/bin/sleep 2\n", "/etc/systemd/system/docker.service.d/slow.conf")
    host.put(compose("my-app", image="no-such-image:1"), "/opt/docker/my-app/compose.yaml")
    run(["docker", "stop", "--time=90", host.name])
    run(["docker", "start", host.name])
    host.wait_until("systemctl is-system-running | grep -E 'running|degraded'", timeout=90, every=0.3)

    host.run("journalctl --sync")
    entries = host.run("journalctl --boot --quiet --output=json --output-fields=MESSAGE,UNIT _PID=1").stdout
    lines = [json.loads(line) for line in entries.splitlines()]
    # Both lives of the host have one boot ID, the kernel's: the second begins where Docker is started last.
    docker = [i for i, line in enumerate(lines) if line["MESSAGE"].startswith("Starting docker.service")]
    events = [(line["UNIT"], line["MESSAGE"].split()[0]) for line in lines[docker[-1] :] if "UNIT" in line]
    of_stacks = [(name, word) for name, word in events if name.startswith("docker-compose@")]
    infra, apps = {unit(stack) for stack in INFRA}, {unit(stack) for stack in (*APPS, "stackward")}
    assert set(of_stacks[:4]) == {(name, word) for name in infra for word in ("Starting", "Finished")}
    assert {name for name, word in of_stacks[4:] if word == "Starting"} == apps
    assert (unit("my-app"), "Failed") in of_stacks
    assert events.index(("docker.service", "Started")) < events.index(of_stacks[0])

    assert host.run("systemctl --failed --plain --no-legend").stdout.split()[0] == unit("my-app")
    host.wait_until("docker exec stackward stackward-healthcheck", every=0.2)
    assert {"/plain-app-1", "/monitoring-app-1", "/stackward"} <= set(started(host))
    host.put(compose("my-app"), "/opt/docker/my-app/compose.yaml")
    assert host.stackward_json("host", "start", "my-app")["through"] == "systemd"
    host.run("rm -r /etc/systemd/system/docker.service.d")


def test_uninstalling_leaves_what_was_there_and_stops_nothing(units, before):
    host = units.host
    running = started(host)
    assert "remove    /usr/local/bin/stackward" in host.run(f"{INSTALL} --uninstall --dry-run").stdout
    host.run("test -e /usr/local/bin/stackward")
    host.run(f"{INSTALL} --uninstall")
    assert traces(host) == before
    assert started(host) == running
    host.run(f"test ! -e {OWN_STATE} && test ! -e /run/stackward/host.sock")
    assert host.run(f"{INSTALL} --uninstall").stdout.split("\n")[0] == "nothing is installed"


@pytest.fixture(scope="module")
def seeded(machine):
    """The same host as its first user would have set it up: cron, snapshots, Watchtower, units, old backups."""
    snapshot = "[Service]\nType=oneshot\nRemainAfterExit=true\nExecStart=btrfs subvolume snapshot {v} {v}/.nightly\n"
    files = {
        "cron.d/docker-maintenance": "BACKUP_RETENTION_DAYS=14\n0 2 * * * root /opt/docker/scripts/backup.py --verify\n",
        "logrotate.d/ct-controller": "/var/log/ct-controller/*.log {\n    daily\n}\n",
        "systemd/system/containers-snapshot.service": snapshot.format(v="/srv/containers")
        + "ExecStop=btrfs subvolume delete /srv/containers/.nightly\n[Install]\nWantedBy=multi-user.target\n",
        "systemd/system/containers-snapshot-nightly.service": "[Service]\nType=oneshot\n"
        "ExecStart=systemctl restart containers-snapshot.service\n",
        "systemd/system/containers-snapshot-nightly.timer": "[Timer]\nUnit=containers-snapshot-nightly.service\n"
        "OnCalendar=Mon..Sun 00:30\n[Install]\nWantedBy=timers.target\n",
        "systemd/system/docker-compose@.service": SEED_TEMPLATE,
    }
    for path, text in files.items():
        machine.put(text, f"/etc/{path}")
    machine.run("docker tag stackward-demo:latest containrrr/watchtower:latest")
    watchtower = compose("watchtower", image="containrrr/watchtower:latest").replace(
        "init: true", 'init: true\n    environment: {WATCHTOWER_SCHEDULE: "0 0 3 * * 1"}'
    )
    machine.put(watchtower, "/opt/docker/watchtower/docker-compose.yml")
    machine.put("old page", "/backup/docker/data-2026-11-01/plain/index.html")
    machine.put("MANIFEST", "/backup/docker/configs-20261101_020000.tar.gz")
    machine.run(
        "tar -C /opt/docker -czf /backup/docker/configs-20261101_020000.tar.gz plain/compose.yaml && systemctl daemon-reload"
        " && systemctl enable --now containers-snapshot.service containers-snapshot-nightly.timer"
        " docker-compose@plain docker-compose@my-app docker-compose@watchtower"
    )
    return machine


def test_adopting_takes_a_seed_s_host_over(seeded, before):
    set_up, running = traces(seeded), started(seeded)
    said = seeded.run(f"{INSTALL} --adopt").stdout

    assert "    | 0 2 * * * root /opt/docker/scripts/backup.py --verify" in said
    seeded.run("test ! -e /etc/cron.d/docker-maintenance")
    assert "    | OnCalendar=Mon..Sun 00:30" in said
    timer = "containers-snapshot-nightly.timer"
    assert seeded.run(f"systemctl is-enabled {timer}; systemctl is-active {timer}", check=False).stdout.split() == [
        "disabled",
        "inactive",
    ]
    seeded.run("test -d /srv/containers/.nightly && systemctl is-active containers-snapshot.service")
    assert "    | WATCHTOWER_SCHEDULE=0 0 3 * * 1" in said
    assert "    | -WorkingDirectory=/opt/docker/%i" in said
    assert {name for name, _ in running.items() - started(seeded).items()} == {"/watchtower-app-1", "/stackward"}

    enabled = seeded.run("cd /etc/systemd/system/multi-user.target.wants && ls | grep ^docker-compose@").stdout
    assert set(enabled.split("\n")) - {"", unit("stackward")} == {unit(stack) for stack in (*APPS, *INFRA)}
    assert seeded.run("systemctl is-active docker-compose@my-app.service", check=False).stdout.strip() == "inactive"
    seeded.wait_until("docker exec stackward stackward-healthcheck", every=0.2)
    jobs = {one["job"]: one["schedule"] for one in seeded.stackward_json("jobs")["jobs"]}
    assert jobs["docker-prune"] == "0 4 * * 6"
    stacks = {one["name"]: one["why"] for one in seeded.stackward_json("stacks", "--no-sizes", "plain")["stacks"]}
    assert "STACKWARD_BACKUP_DEFAULT" in stacks["plain"] or "default" in stacks["plain"]
    listed = json.dumps(seeded.stackward_json("list"))
    assert "data-2026-11-01" in listed
    assert "configs-20261101_020000" in listed
    assert 'BACKUP_RETENTION_DAYS = "14"' in seeded.run("cat /etc/stackward/stackward.toml").stdout

    again = traces(seeded)
    assert seeded.run(f"{INSTALL} --adopt").stdout.splitlines()[-1] == "nothing to do"
    assert traces(seeded) == again

    seeded.run(f"{INSTALL} --uninstall")
    assert traces(seeded) == set_up
    assert seeded.run(f"systemctl is-active {timer}").stdout.strip() == "active"
    assert "/watchtower-app-1" in started(seeded)


def test_stacks_elsewhere_have_units_that_say_so(machine):
    machine.run("mkdir -p /opt/stacks")
    machine.run(f"DOCKER_ROOT=/opt/stacks STACKWARD_VOLUME=/mnt/pool {INSTALL}")
    shown = machine.run("systemctl cat docker-compose@x.service stackward-host@x.service").stdout
    assert "WorkingDirectory=/opt/stacks/%I" in shown
    assert "RequiresMountsFor=/opt/stacks /mnt/pool" in shown
    assert "Environment=DOCKER_ROOT=/opt/stacks" in shown
    machine.run("docker stop stackward")
    machine.run("docker rename stackward away")
    try:
        assert machine.run(INSTALL).stdout.splitlines()[-1] == "nothing to do"
    finally:
        machine.run("docker rename away stackward")
    machine.run(f"{INSTALL} --uninstall")


def test_a_host_that_cannot_be_set_up_is_told_so_and_left_alone(machine):
    settled = traces(machine)
    for command, why in (
        (f"DOCKER_ROOT=/nowhere {INSTALL}", "there is no directory /nowhere"),
        (f"DOCKER_ROOT='/opt/my docker' {INSTALL}", "units cannot carry the path"),
        (f"setpriv --reuid=65534 --clear-groups {INSTALL}", "must be run as root"),
        (f"{INSTALL} --frobnicate", "usage:"),
    ):
        with pytest.raises(CommandError, match=why):
            machine.run(command)
    assert traces(machine) == settled
