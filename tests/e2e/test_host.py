"""The disposable host itself: what the other end-to-end tests stand on."""

import pytest

from host import CommandError, Host, Run
from host.shell import run

pytestmark = pytest.mark.e2e


def test_writer_commits_orders_without_gaps(host):
    rows = "docker exec shop-db-1 psql -U postgres -d shop -qAtc 'SELECT count(*), max(number) FROM orders'"
    host.wait_until(f"{rows} | grep -v '^0'")
    count, highest = host.run(rows).stdout.strip().split("|")
    assert count == highest


def test_a_stack_without_its_hardware_runs_the_rest(host):
    running = host.run("cd /opt/docker/photos && docker compose ps --format '{{.Service}}'").stdout.split()
    assert sorted(running) == ["database", "server"]


def test_content_survives_put_and_get(host):
    host.put(b"\0\xff odd", "/root/some dir/file")
    assert host.get("/root/some dir/file") == b"\0\xff odd"


def test_a_failing_command_says_what_it_said(host):
    with pytest.raises(CommandError, match="no such thing"):
        host.run("echo no such thing >&2; exit 3")


def test_disk_mounted_later_appears_in_the_appliance(host):
    host.run("mkdir -p /srv/later && mount -t tmpfs later /srv/later && touch /srv/later/here")
    try:
        host.run("docker exec stackward test -e /srv/later/here")
    finally:
        host.run("umount /srv/later")


def test_appliance_starts_without_a_btrfs_volume_and_creates_no_path(fresh_host):
    host = fresh_host(volume="none", backup="dir")
    assert host.run("ls -A /srv").stdout == ""
    assert host.run("ls -A /backup/docker").stdout == ""


def test_appliance_does_not_start_on_an_imagined_backup_root(fresh_host):
    host = fresh_host(backup="none", appliance=False)
    with pytest.raises(CommandError, match="bind source path does not exist: /backup/docker"):
        host.appliance_up()
    host.run("test ! -e /backup")


def test_container_ends_when_the_daemon_cannot_be_kept_running(fresh_host):
    host = fresh_host(appliance=False)
    host.appliance_up({"BACKUP_RETENTION_DAYS": "no number"}, wait=False)
    host.wait_until("[ $(docker inspect --format '{{.RestartCount}}' stackward) -gt 0 ]", timeout=90)
    assert "BACKUP_RETENTION_DAYS" in host.run("docker logs stackward 2>&1").stdout


def test_disks_survive_a_pulled_plug(fresh_host):
    host = fresh_host(appliance=False)
    host.run("echo kept >/backup/docker/note && sync")
    host.restart()
    assert host.get("/backup/docker/note") == b"kept\n"


def test_a_destroyed_host_leaves_nothing(fresh_host):
    host = fresh_host(appliance=False)
    disks = f"/disks/{host.name}/"
    assert disks in run(["sh", "-c", "cat /sys/block/loop*/loop/backing_file"]).stdout
    host.destroy()
    everything = run(
        ["sh", "-c", "cat /sys/block/loop*/loop/backing_file; docker ps -a; docker volume ls"], check=False
    )
    assert host.name not in everything.stdout


def test_only_what_a_dead_run_left_is_swept_up():
    dead = Run()
    name = Host.start(dead.id).name
    Run.sweep()
    assert Host.find(name) is not None
    dead.lock.close()
    Run.sweep()
    assert Host.find(name) is None
