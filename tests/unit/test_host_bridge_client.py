"""The client of the host bridge against a real socket whose other side answers well, badly, or not at all."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from datetime import UTC, datetime

import pytest

from stackward.core.exposure import Listener
from stackward.tools.host import Bridge, BridgeError, BridgeUnavailableError, UnitState, host_rotates_logs

SITE = "docker-compose@site.service"


@pytest.fixture
def bridge(tmp_path):
    """`bridge(answer)`: a client, and the lines its server got; `answer` is bytes, or a function of the connection."""
    servers = []

    def start(answer, **limits):
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(tmp_path / "host.sock"))
        server.listen()
        got = []

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, contextlib.suppress(OSError):
                        got.append(connection.makefile("rb").readline())
                        answer(connection) if callable(answer) else connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        servers.append((server, thread))
        return Bridge(tmp_path, **limits), got

    yield start
    for server, thread in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)


def test_a_request_is_one_line_of_a_verb_and_a_unit(bridge):
    client, got = bridge(b"ok active\n")
    assert client.restart(SITE).text == "active"
    client.start(SITE)
    client.stop(SITE)
    client.reset_failed(SITE)
    assert got == [f"{verb} {SITE}\n".encode() for verb in ("restart", "start", "stop", "reset-failed")]


def test_ping_tells_what_the_host_has(bridge):
    client, got = bridge(b"docker-root=/srv/stacks\ncompose=v2.26.1-4\nok stackward-host 1\n")
    info = client.ping()
    assert (info.docker_root, info.compose) == ("/srv/stacks", "2.26.1-4")
    assert got == [b"ping\n"]


@pytest.mark.parametrize("answer", [b"ok stackward-host 2\n", b"ok\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_who_does_not_speak_the_protocol_is_no_bridge(bridge, answer):
    client, _ = bridge(answer)
    with pytest.raises(BridgeUnavailableError, match=r"the host bridge (speaks|does not work)"):
        client.ping()


def test_a_missing_socket_says_what_to_do(tmp_path):
    with pytest.raises(BridgeUnavailableError, match="not installed\nHINT: run host-units/install on the host"):
        Bridge(tmp_path).ping()


def test_a_socket_without_a_listener_was_asked_nothing(tmp_path):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "host.sock"))
    with pytest.raises(BridgeUnavailableError, match=r"Connection refused\nHINT: .*stackward-host\.socket"):
        Bridge(tmp_path).restart(SITE)


def test_a_failure_has_the_last_lines_of_the_journal(bridge):
    client, _ = bridge(b"Job failed.\n-- the last of the journal:\nno such image\nerror start failed: it is failed\n")
    with pytest.raises(BridgeError, match="start failed: it is failed") as failed:
        client.start(SITE)
    assert failed.value.lines == ("Job failed.", "-- the last of the journal:", "no such image")


def test_a_journal_that_looks_like_success_is_none(bridge):
    client, _ = bridge(b"ok active\nok\nerror restart failed\n")
    with pytest.raises(BridgeError, match="restart failed"):
        client.restart(SITE)


@pytest.mark.parametrize("answer", [b"", b"starting\n", b"ok act", b"okay\n", b"error", b"\xff\xfe\n"])
def test_half_an_answer_is_no_success_and_no_reason_to_try_something_else(bridge, answer):
    client, _ = bridge(answer)
    with pytest.raises(BridgeError, match="ended without an answer"):
        client.stop(SITE)


def test_bytes_that_are_no_text_come_through_escaped(bridge):
    client, _ = bridge(b"caf\xe9\nerror start failed\n")
    with pytest.raises(BridgeError) as failed:
        client.start(SITE)
    assert failed.value.lines == ("caf\\xe9",)


def test_silence_ends_at_the_time_limit(bridge):
    client, _ = bridge(lambda connection: connection.recv(1), act_seconds=0.2)
    before = time.monotonic()
    with pytest.raises(BridgeError, match=r"did not answer within 0 s\nHINT: .*list-jobs"):
        client.restart(SITE)
    assert time.monotonic() - before < 60


def test_a_trickle_does_not_outlast_the_time_limit(bridge):
    def trickle(connection):
        for _ in range(4000):
            connection.sendall(b"still at it\n")
            time.sleep(0.05)

    client, _ = bridge(trickle, act_seconds=0.3)
    before = time.monotonic()
    with pytest.raises(BridgeError, match="did not answer"):
        client.restart(SITE)
    assert time.monotonic() - before < 60


def test_a_flood_ends_at_a_bound(bridge):
    def flood(connection):
        while True:
            connection.sendall(b"x" * (1 << 20))

    client, _ = bridge(flood)
    with pytest.raises(BridgeError, match="ended without an answer"):
        client.restart(SITE)


def test_show_reads_what_systemd_says(bridge):
    properties = "LoadState=loaded\nActiveState=failed\nSubState=failed\nUnitFileState=enabled\nResult=exit-code\n"
    client, _ = bridge(f"{properties}StateChangeTimestamp=@1790000000\nok failed\n".encode())
    changed = datetime.fromtimestamp(1790000000, UTC)
    assert client.show(SITE) == UnitState(SITE, "loaded", "failed", "failed", "enabled", "exit-code", changed)


def test_a_unit_that_was_never_started_has_no_date(bridge):
    client, _ = bridge(b"ActiveState=inactive\nStateChangeTimestamp=\nok inactive\n")
    assert client.show(SITE).changed_at is None


def test_facts_are_read_kind_by_kind(bridge):
    answer = rb"""failed ssh.service
failed docker-compose@my\x2dapp.service
listener tcp   LISTEN 0      4096         0.0.0.0:8080  0.0.0.0:* users:(("docker-proxy",pid=1,fd=4),("web",pid=2,fd=7))
listener udp   UNCONN 0      0      [fe80::1%eth0]:546   [::]:*
listener tcp   LISTEN 0      128             [::]:22       [::]:* users:(("sshd",pid=9,fd=4),("sshd",pid=10,fd=4))
listener what is this
disks { "blockdevices": [ {"path": "/dev/sda", "type": "disk", "size": 1000} ] }
smart /dev/sda {"smart_status":{"passed":true}}
smart /dev/sdb
missing lsof
ok
"""
    client, _ = bridge(answer)
    facts = client.facts()
    assert facts.failed_units == ("ssh.service", r"docker-compose@my\x2dapp.service")
    assert facts.listeners == (
        Listener("tcp", "0.0.0.0", 8080, ("docker-proxy", "web")),
        Listener("udp", "fe80::1%eth0", 546),
        Listener("tcp", "::", 22, ("sshd",)),
    )
    assert facts.disks == ({"path": "/dev/sda", "type": "disk", "size": 1000},)
    assert facts.smart == {"/dev/sda": {"smart_status": {"passed": True}}}
    assert facts.missing == ("lsof",)


def test_facts_of_a_host_that_can_tell_nothing_are_empty(bridge):
    client, _ = bridge(b"disks nonsense\nok\n")
    facts = client.facts()
    assert (facts.failed_units, facts.listeners, facts.disks, facts.smart) == ((), (), (), {})


def test_the_host_rotates_logs_once_the_installer_wrote_so(tmp_path):
    assert not host_rotates_logs(tmp_path)
    (tmp_path / "host-units").mkdir()
    record = tmp_path / "host-units" / "record"
    record.write_text("created /etc/logrotate.d/ct-controller\n")
    assert not host_rotates_logs(tmp_path)
    record.write_text("created /etc/logrotate.d/ct-controller\nthe host rotates the logs\n")
    assert host_rotates_logs(tmp_path)
