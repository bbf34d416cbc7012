"""`python -m stackward.web` as a program: what it serves, to whom, and what it survives."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stackward.core.model import JobResult, Outcome, StackResult
from stackward.observe.facts import ContainerFacts, StackFacts, View
from stackward.observe.metrics import exposition
from stackward.store import Store
from stackward.tools.locks import Locks
from unit.receivers import free_port

NOW = datetime.now(UTC)
STACKS = 200


def open_store(state: Path) -> Store:
    return Store.open(state / "stackward.sqlite", now=NOW, locks=Locks(state / "locks"))


def containers(stack):
    return tuple(ContainerFacts(service, f"{stack}-{service}-1", running=True, healthy=True) for service in "abc")


def fill(store, stacks=STACKS):
    names = [f"stack-{number}" for number in range(stacks)]
    facts = tuple(
        StackFacts(
            name, "protected", has_data=True, data_at=NOW, data_bytes=7, data_files=1, containers=containers(name)
        )
        for name in names
    )
    store.keep_view(View(NOW, facts, intervals={"backup-data": 86400.0, "verify": 86400.0}))
    for job in ("backup-config", "backup-data", "verify", "prune"):
        run_id = store.begin_run(job, NOW, "schedule")
        parts = tuple(StackResult(name, Outcome.OK, standstill_seconds=1.0) for name in names)
        store.end_run(run_id, NOW, JobResult(Outcome.OK, stacks=parts))


@pytest.fixture
def state(tmp_path):
    (tmp_path / "heartbeat").touch()
    return tmp_path


@pytest.fixture
def port():
    return free_port()


@contextmanager
def program(state, listen):
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": ":".join(sys.path),
        "STACKWARD_STATE_DIR": str(state),
        "STACKWARD_CONFIG_DIR": str(state),
        "STACKWARD_LISTEN": listen,
    }
    argv = [sys.executable, "-m", "stackward.web"]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.terminate()


@pytest.fixture
def web(state, port):
    open_store(state).close()
    with program(state, f"127.0.0.1:{port}") as running:
        yield running


def ask(port, path, method="GET", host="127.0.0.1", **more):
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request(method, path, **more)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), dict(answer.getheaders())
    finally:
        connection.close()


def test_metrics_are_what_the_store_says_and_follow_it(web, port, state):
    with open_store(state) as store:
        for _ in range(2):
            store.end_run(store.begin_run("verify", NOW, "cli"), NOW, JobResult(Outcome.OK))
            status, text, headers = ask(port, "/metrics?x=1")
            assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
            body, _, alive = text.partition("# HELP stackward_heartbeat_timestamp_seconds")
            assert body.encode() == exposition(store.facts())
            assert float(alive.split()[-1]) == pytest.approx((state / "heartbeat").stat().st_mtime)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """For tests that only ask."""
    state, port = tmp_path_factory.mktemp("state"), free_port()
    open_store(state).close()
    with program(state, f"127.0.0.1:{port}"):
        yield port


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "NONSENSE"])
def test_nothing_but_get_is_answered(shared, method):
    status, _, headers = ask(shared, "/metrics", method)
    assert (status, headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/../etc/passwd", "/healthz/x"])
def test_there_is_nothing_else(shared, path):
    assert ask(shared, path)[0] == 404


def test_healthy_while_the_daemon_lives_and_the_history_can_be_read(web, port, state):
    status, text, _ = ask(port, "/healthz")
    assert (status, json.loads(text)) == (200, {"healthy": True, "problems": []})
    os.utime(state / "heartbeat", (time.time() - 600, time.time() - 600))
    status, text, _ = ask(port, "/healthz")
    assert (status, json.loads(text)["problems"]) == (503, ["the daemon's last sign of life was 10m ago"])
    (state / "heartbeat").unlink()
    assert json.loads(ask(port, "/healthz")[1])["problems"] == ["the daemon has given no sign of life yet"]


def test_a_history_that_was_damaged_and_moved_aside_is_read_anew(web, port, state):
    assert ask(port, "/metrics")[0] == 200
    for name in ("stackward.sqlite", "stackward.sqlite-wal", "stackward.sqlite-shm"):
        (state / name).unlink(missing_ok=True)
    with open_store(state) as store:
        fill(store, 1)
    assert 'stackward_stack_protected{reason="",stack="stack-0"} 1.0' in ask(port, "/metrics")[1]


def test_a_history_that_cannot_be_opened_is_no_metrics_and_not_healthy(web, port, state):
    for name in ("stackward.sqlite", "stackward.sqlite-wal", "stackward.sqlite-shm"):
        (state / name).unlink(missing_ok=True)
    (state / "stackward.sqlite").mkdir()
    status, text, _ = ask(port, "/metrics")
    assert status == 503
    assert "cannot be opened" in text
    assert ask(port, "/healthz")[0] == 503


def test_readers_that_say_nothing_hold_up_nobody_for_long(web, port):
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    try:
        time.sleep(0.5)
        for one in silent:
            one.close()
        deadline = time.monotonic() + 60
        while True:
            try:
                assert ask(port, "/metrics")[0] == 200
                break
            except (OSError, http.client.HTTPException):
                assert time.monotonic() < deadline
    finally:
        for one in silent:
            one.close()


def test_a_huge_request_is_refused(shared):
    with suppress(OSError):  # it may hang up on us before it has read all
        assert ask(shared, "/metrics", headers={"X": "x" * 100_000})[0] in (400, 431)
    assert ask(shared, "/metrics")[0] == 200


def test_a_taken_port_is_said(state):
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        program(state, f"127.0.0.1:{taken.getsockname()[1]}") as (process, said),
    ):
        assert process.wait(60) == 1
    assert "cannot listen on 127.0.0.1" in said["message"]


def test_it_listens_on_ipv6_too(state, port):
    open_store(state).close()
    with program(state, f"[::1]:{port}"):
        assert ask(port, "/healthz", host="::1")[0] == 200


def test_off_serves_nothing_and_stays(state):
    with program(state, "off") as (process, said):
        assert "nothing is served" in said["message"]
        assert process.poll() is None
        process.terminate()
        assert process.wait(60) == 0


def test_it_ends_when_it_is_told_to(web):
    process, _ = web
    process.terminate()
    assert process.wait(60) == 0


def queries_of_a_scrape(directory, stacks):
    directory.mkdir()
    asked = []
    with open_store(directory) as store:
        fill(store, stacks)
        store._connection.set_trace_callback(asked.append)
        text = exposition(store.facts())
    return asked, text


def test_a_scrape_asks_the_store_as_little_on_a_host_with_many_stacks_as_with_few(tmp_path):
    """What it costs in seconds is measured by the benchmark `scrape`."""
    few, _ = queries_of_a_scrape(tmp_path / "few", 2)
    many, text = queries_of_a_scrape(tmp_path / "many", STACKS)
    assert text.count(b"stackward_stack_protected{") == STACKS
    assert len(many) == len(few) <= 12
    assert len(text.splitlines()) < 60 * STACKS


def test_a_scrape_without_a_change_writes_nothing_down_again(web, port, state):
    with open_store(state) as store:
        fill(store)
    first, again = (ask(port, "/metrics") for _ in range(2))
    assert first[0] == again[0] == 200
    assert first[1].count("stackward_stack_protected{") == STACKS
