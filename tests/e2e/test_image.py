"""The appliance's container: what it may do, and no more; what it says of itself."""

import json
import shlex

import pytest
import yaml

from host.images import CHECKOUT
from host.seed import APPLIANCE

pytestmark = pytest.mark.e2e

SERVICE = yaml.safe_load((CHECKOUT / "compose.yaml").read_text())["services"]["stackward"]

# What cannot be done without each of the capabilities that compose.yaml asks for. /srv/containers/caps is on Btrfs.
NEEDS = {
    "SYS_ADMIN": "btrfs subvolume list /srv/containers",
    "DAC_OVERRIDE": "cat locked",
    "CHOWN": "chown 1000:1000 mine",
    "FOWNER": "chmod 640 theirs",
    "FSETID": "chmod 2755 theirs && test -g theirs",
    "MKNOD": "mknod null c 1 3",
    "SYS_CHROOT": "chroot / true",
    "SETGID": "setpriv --clear-groups true",
    "SETFCAP": 'rsync -X capable copy && python -c \'import os; os.getxattr("copy", "security.capability")\'',
}


@pytest.fixture
def files(host):
    host.run("mkdir -p /srv/containers/caps && cd /srv/containers/caps && touch mine theirs locked capable")
    host.run("cd /srv/containers/caps && chown 1000:1000 theirs locked && chmod 000 locked")
    # A file capability as setcap would write it: cap_net_raw, effective and permitted.
    host.run(
        "cd /srv/containers/caps && setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 capable"
    )
    yield
    host.run("rm -rf /srv/containers/caps")


def _try(host, capabilities, command):
    adds = " ".join(f"--cap-add={name}" for name in capabilities)
    bind = "-v /srv/containers:/srv/containers -w /srv/containers/caps --security-opt no-new-privileges:true"
    return host.run(
        f"docker run --rm --cap-drop=ALL {adds} {bind} {APPLIANCE} sh -c {shlex.quote(command)}", check=False
    )


def test_every_capability_asked_for_has_a_reason():
    assert sorted(SERVICE["cap_add"]) == sorted(NEEDS)
    assert SERVICE["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("capability", NEEDS)
def test_capability_is_needed(host, files, capability):
    others = [name for name in SERVICE["cap_add"] if name != capability]
    assert _try(host, others, NEEDS[capability]).returncode != 0
    done = _try(host, SERVICE["cap_add"], NEEDS[capability])
    assert done.returncode == 0, done.stderr


def test_no_program_in_it_gains_rights_and_all_of_it_has_limits(host):
    """The disposable host's engine cannot set limits of memory, so these are what Compose asks for."""
    assert (
        host.run("docker inspect stackward -f '{{.HostConfig.SecurityOpt}}'").stdout.strip()
        == "[no-new-privileges:true]"
    )
    said = host.run("docker exec stackward sh -c 'cat /proc/[0-9]*/status' | grep NoNewPrivs | sort -u").stdout
    assert said.split() == ["NoNewPrivs:", "1"]
    asked = "cd /opt/stackward && docker compose config --format json"
    for settings, memory, pids in (
        ("", 3 << 30, 1000),
        ("STACKWARD_MEMORY_LIMIT=1g STACKWARD_PIDS_LIMIT=200 ", 1 << 30, 200),
    ):
        service = json.loads(host.run(f"{asked.replace('docker', settings + 'docker')}").stdout)["services"][
            "stackward"
        ]
        assert (int(service["mem_limit"]), service["pids_limit"]) == (memory, pids)


WAIT_FOR_EVER = """
import os, threading
from pathlib import Path
from stackward.tools import compose, process
os.mkfifo("/tmp/compose.yaml")
def look():
    lines = [Path("/proc", pid, "cmdline").read_bytes() for pid in os.listdir("/proc") if pid.isdecimal()]
    print("at work:", sum(line.split(bytes(1))[0].endswith(b"/docker-compose") for line in lines))
threading.Timer(4, look).start()
try:
    process.run([*compose.command(), "-f", "/tmp/compose.yaml", "config"], time_limit_seconds=5)
except process.TimeLimitError:
    print("ended")
{more}
"""
KILL_US = """
threading.Timer(5, lambda: os.kill(os.getpid(), 9)).start()
process.run([*compose.command(), "-f", "/tmp/compose.yaml", "config"])
"""


@pytest.mark.parametrize("more", ["", KILL_US], ids=["a limit", "our own death"])
def test_docker_leaves_no_compose_behind_when_it_is_ended(host, more):
    """`docker` runs Compose as a program of its own; here it waits for a pipe that nothing is written to."""
    at_work = "grep -lazP '/docker-compose$' /proc/[0-9]*/cmdline"
    try:
        host.put(WAIT_FOR_EVER.format(more=more), "/opt/docker/wait.py")
        done = host.run("docker exec stackward python -u /opt/docker/wait.py", check=False)
        assert "at work: 1\nended" in done.stdout, done
        assert (done.returncode != 0) is bool(more)
        host.wait_until(f"! {at_work}", timeout=60)
    finally:
        host.run("rm -f /opt/docker/wait.py; docker exec stackward rm -f /tmp/compose.yaml")


def test_root_file_system_is_read_only(host):
    done = host.run("docker exec stackward touch /usr/bin/intruder /opt/venv/intruder", check=False)
    assert done.stderr.count("Read-only file system") == 2


def test_host_directories_have_the_same_path_inside_and_are_never_created():
    binds = [volume for volume in SERVICE["volumes"] if isinstance(volume, dict)]
    assert {bind["source"] == bind["target"] for bind in binds} == {True}
    assert {json.dumps(bind["bind"]) for bind in binds} == {'{"propagation": "rslave", "create_host_path": false}'}


def test_image_is_small_and_says_what_it_is(host):
    image = json.loads(host.run(f"docker image inspect {APPLIANCE}").stdout)[0]
    assert image["Size"] < 600e6
    assert image["Config"]["Labels"]["org.opencontainers.image.licenses"] == "MIT"
    said = host.run(f"docker run --rm {APPLIANCE} stackward --version").stdout
    assert image["Config"]["Labels"]["org.opencontainers.image.version"] in said


def test_container_turns_healthy(host):
    host.wait_until("docker inspect --format '{{.State.Health.Status}}' stackward | grep -x healthy", timeout=90)


def test_settings_in_env_reach_the_appliance(fresh_host):
    host = fresh_host(appliance=False)
    host.run("mkdir /srv/containers/backups")
    host.appliance_up({"STACKWARD_SCHEDULE": "false", "BACKUP_ROOT": "/srv/containers/backups"})
    environment = host.run("docker exec stackward env").stdout.splitlines()
    assert "STACKWARD_SCHEDULE=false" in environment
    assert "BACKUP_ROOT=/srv/containers/backups" in environment
