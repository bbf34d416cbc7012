"""The container has the rights that it needs and no others; and what is hardest to keep of a file survives them."""

from __future__ import annotations

import pytest
import yaml

from e2e import tiny
from host.images import CHECKOUT
from host.seed import APPLIANCE

pytestmark = pytest.mark.e2e

SERVICE = yaml.safe_load((CHECKOUT / "compose.yaml").read_text())["services"]["stackward"]
FOR_TREES_IN_USE = ("SYS_CHROOT", "SETGID")
BTRFS, PLAIN = "/srv/containers/odd", "/opt/docker/odd/data"
# Everything about a file that a copy can lose. Devices are null's twin and a block device that nothing answers to.
MAKE = r"""
set -e
printf 'new\nline' >"$(printf 'new\nline')"; printf x >'back\slash'; printf x >"$(printf 'latin\351')"; printf x >'-rf'
mkdir -p 'with blank/deep er'; printf x >'with blank/deep er/ '
ln -s /nowhere/at/all dangling; ln -s /etc/passwd absolute; ln -s 'with blank' relative
mkfifo fifo; mknod null c 1 3; mknod block b 240 7
truncate -s 64M sparse; printf end >>sparse
printf linked >one; ln one two; ln one 'with blank/three'
printf owned >owned; chown 1234:5678 owned; chmod 600 owned; touch -d 2001-02-03T04:05:06.789 owned
printf setuid >setuid; chown 42:43 setuid; chmod 6755 setuid
mkdir setgid; chown 42:43 setgid; chmod 3770 setgid
mkdir locked; printf secret >locked/file; chown -R 1234:1234 locked; chmod 400 locked/file; chmod 700 locked
printf capable >capable; setcap cap_net_raw+ep capable
printf attributes >attributes; setfattr -n user.note -v hello attributes; setfattr -n trusted.note -v kept attributes
setfacl -m u:1234:rw,g:5678:r attributes; setfacl -d -m u:1234:rwx setgid
"""
LIST = r"""
find . ! -type d -printf '%P|%y|%m|%U:%G|%n|%l|%T@|%s\0' | sort -z | tr '\0' '\n'
find . -type d -printf '%P|%y|%m|%U:%G|%T@\0' | sort -z | tr '\0' '\n'
find . -type f ! -name sparse -print0 | sort -z | xargs -0 sha256sum --
find . -print0 | sort -z | xargs -0 getfattr -hd -m - --
find . ! -type l -print0 | sort -z | xargs -0 getfacl -pn --
stat -c '%n %t:%T' null block
find . -samefile one | sort
[ $(stat -c %b sparse) -lt 1000 ] && echo sparse
"""


@pytest.fixture(scope="module")
def world(small_host):
    """A stack with odd files on Btrfs and on DOCKER_ROOT, backed up once."""
    host = small_host
    tiny.down(host)
    host.appliance_reset({"STACKWARD_SCHEDULE": "false"})
    tiny.up(host, "odd", tiny.sleeper("./data:/data", f"{BTRFS}:/btrfs"), {"data/file": "", f"{BTRFS}/file": ""})
    for place in (BTRFS, PLAIN):
        host.run("sh -s", input=f"cd {place}\n{MAKE}")
        listen = f"import socket; socket.socket(socket.AF_UNIX).bind('{place}/socket')"
        host.run(f'docker exec stackward python -c "{listen}" && test -S {place}/socket')
    done = host.stackward_json("backup", "--verify", check=False)
    assert done["exit_code"] == 0, done
    assert tiny.by_stack(done)["odd"]["outcome"] == "ok", done
    return host


def listing(host, place):
    return host.run("sh -s", input=f"cd {place}\n{LIST}").stdout


def appliance(host, capabilities, *words):
    """One command of the appliance with its mounts, and these capabilities."""
    rights = " ".join(f"--cap-add {name}" for name in capabilities)
    options = "--rm --read-only --tmpfs /tmp --tmpfs /run --volumes-from stackward --cap-drop ALL"
    options += "".join(f" --security-opt {option}" for option in SERVICE["security_opt"])
    return host.run(f"docker run {options} {rights} {APPLIANCE} stackward {' '.join(words)}", check=False)


@pytest.mark.parametrize("place", [BTRFS, PLAIN])
def test_everything_about_a_file_survives_backup_and_restore(world, place):
    before = {where: listing(world, where) for where in (BTRFS, PLAIN)}
    assert "trusted.note" in before[place]
    world.run(f"cd {place} && find . -mindepth 1 -delete && echo half >file")
    restored = world.stackward_json("restore", "odd")
    assert restored["outcome"] == "ok", restored
    assert {where: listing(world, where) for where in (BTRFS, PLAIN)} == before
    assert world.stackward_json("backup")["steps"][1]["counts"]["files_changed"] >= 0
    assert world.stackward_json("verify", check=False)["outcome"] == "ok"


def test_what_compose_grants_is_enough_and_nothing_more_is_granted(world):
    granted = world.run("docker inspect stackward -f '{{json .HostConfig.CapAdd}} {{json .HostConfig.CapDrop}}'").stdout
    assert '["ALL"]' in granted
    assert world.run("docker inspect stackward -f '{{.HostConfig.Privileged}}'").stdout.strip() == "false"
    done = appliance(world, SERVICE["cap_add"], "restore", "odd", "--to", "/srv/containers/enough", "--json")
    assert done.returncode == 0, done
    assert listing(world, "/srv/containers/enough/data") == listing(world, PLAIN)


@pytest.mark.parametrize("right", SERVICE["cap_add"])
def test_each_right_is_needed(world, right):
    others = [name for name in SERVICE["cap_add"] if name != right]
    if right in FOR_TREES_IN_USE:
        done = appliance(world, others, "backup", "--json")
        assert done.returncode != 0, f"{right} is granted for nothing"
        assert "SYS_CHROOT and SETGID" in done.stdout
        assert appliance(world, SERVICE["cap_add"], "backup", "--json").returncode == 0
        return
    place = f"/srv/containers/without-{right}"
    done = appliance(world, others, "restore", "odd", "--to", place, "--json")
    same = done.returncode == 0 and listing(world, f"{place}/data") == listing(world, PLAIN)
    assert not same, f"{right} is granted for nothing"


def test_the_root_file_system_is_read_only_and_nothing_wants_it_otherwise(world):
    assert world.run("docker exec stackward touch /opt/venv/x", check=False).returncode != 0
    world.stackward("backup")
    world.stackward("check", check=False)
    world.stackward("init", "--no-key")
    written = [line for line in world.run("docker diff stackward").stdout.splitlines() if not line.startswith("C ")]
    mounts = [line.split()[1] for line in world.run("docker exec stackward cat /proc/mounts").stdout.splitlines()]
    assert [line for line in written if not any(mount.startswith(line[2:]) for mount in mounts)] == []
