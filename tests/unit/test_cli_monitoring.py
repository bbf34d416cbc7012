"""The verbs metrics and notify, and what backup pushes and sends: real settings, real receivers, no Docker Engine."""

import json
import socket
import subprocess
import sys

import pytest

from stackward.cli.main import main
from stackward.store import open_in
from unit.hosts import NOW
from unit.receivers import free_port, http, receive_gelf_udp, refuses

COMPOSE = """
services:
  web:
    image: nginx
    labels: {stackward.backup: "true"}
"""


@pytest.fixture
def host(tmp_path, monkeypatch):
    for name in ("backup", "state", "volume", "etc", "run", "docker/shop/data"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "docker/shop/data/file").write_text("hello\n")
    (tmp_path / "docker/shop/compose.yaml").write_text(COMPOSE)
    for name, value in {
        "DOCKER_ROOT": tmp_path / "docker",
        "BACKUP_ROOT": tmp_path / "backup",
        "STACKWARD_VOLUME": tmp_path / "volume",
        "STACKWARD_STATE_DIR": tmp_path / "state",
        "STACKWARD_CONFIG_DIR": tmp_path / "etc",
        "STACKWARD_RUN_DIR": tmp_path / "run",
        "STACKWARD_MINIMUM_FREE": "1",
        "STACKWARD_DOCKER_HOST": f"unix://{tmp_path}/no-docker.sock",
        "PYTHONPATH": ":".join(sys.path),
    }.items():
        monkeypatch.setenv(name, str(value))
    return tmp_path


def called(capsys, *words):
    code = main(words)
    out, err = capsys.readouterr()
    return code, json.loads(out) if out.startswith(("{", "[")) else out, err


def test_metrics_say_what_a_backup_came_to(host, capsys):
    assert called(capsys, "backup")[0] == 0
    code, out, _ = called(capsys, "metrics")
    assert code == 0
    assert 'stackward_stack_protected{reason="",stack="shop"} 1.0' in out
    assert 'stackward_job_runs_total{job="backup-data",outcome="ok"} 1.0' in out


def test_a_dry_run_tells_nobody_and_keeps_nothing(host, capsys):
    called(capsys, "backup", "--dry-run")
    with open_in(host / "state", NOW) as store:
        assert store.facts().view is None
        assert store.facts().totals == {}


def test_notify_without_anybody_to_tell_says_what_to_set(host, capsys):
    code, _, err = called(capsys, "notify")
    assert code == 2
    assert "STACKWARD_NOTIFY_URLS" in err


def test_notify_says_who_took_it_and_hides_secrets(host, capsys, monkeypatch):
    with http() as good, http(refuses) as bad:
        urls = f"json://me:secret@{good.address}/ json://{bad.address}/"
        monkeypatch.setenv("STACKWARD_NOTIFY_URLS", urls)
        code, found, err = called(capsys, "notify", "hello there")
    assert code == 1
    assert [one["told"] for one in found] == [True, False]
    assert "500" in found[1]["why"]
    assert "secret" not in json.dumps(found) + err
    assert good.documents[0]["message"] == "hello there"


def test_a_failed_backup_is_told_by_whoever_sends_what_is_pending(host, capsys, monkeypatch):
    with http() as webhook:
        monkeypatch.setenv("STACKWARD_NOTIFY_URLS", f"json://{webhook.address}/")
        monkeypatch.setenv("STACKWARD_MINIMUM_FREE", "1000PB")
        assert called(capsys, "backup")[0] == 4
        assert webhook.requests == []
        for _ in range(2):
            subprocess.run([sys.executable, "-m", "stackward.cli.main", "notify", "--pending"], check=True)
    (document,) = webhook.documents
    assert document["message"].count("free") == document["message"].count("Next: make room") == 2
    assert document["title"].endswith("backup-config failed, and 1 more")


def test_a_gateway_that_is_away_makes_no_backup_fail(host, capsys, monkeypatch):
    monkeypatch.setenv("STACKWARD_PUSHGATEWAY_URL", f"http://127.0.0.1:{free_port()}")
    code, _, err = called(capsys, "backup", "--push-metrics")
    assert code == 0
    assert "metrics were not pushed" in err


@pytest.mark.parametrize("flag", ["--push-metrics", "--send-log"])
def test_what_has_nowhere_to_go_is_refused_before_anything_is_done(host, capsys, flag):
    code, _, err = called(capsys, "backup", flag)
    assert code == 2
    assert flag in err
    assert not list((host / "backup").iterdir())


def test_outcomes_are_sent_where_it_is_asked_for(host, capsys, monkeypatch):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        monkeypatch.setenv("STACKWARD_GELF_URL", f"udp://127.0.0.1:{receiver.getsockname()[1]}")
        assert called(capsys, "backup", "--send-log")[0] == 0
        jobs = {record["_job"] for record in receive_gelf_udp(receiver, 5)}
    assert jobs == {"backup-config", "backup-data", "prune"}
