"""The watcher's two sides on real directories and, where there is one, a real Docker; and the program as a whole."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from stackward.stacks.memory import CHANGED_NOTE
from stackward.steps.report import heartbeat
from stackward.watcher.containers import Containers
from stackward.watcher.directories import KNOWN_NOTE, Directories
from unit.hosts import DOCKER_HOST, SmallHost

PLAIN = "services: {web: {image: nginx}}\n"
LABELLED = "services: {web: {image: nginx, labels: {stackward.backup: 'true'}}}\n"


@pytest.fixture
def host(tmp_path, caplog):
    caplog.set_level(logging.INFO, "stackward.watcher")
    small = SmallHost(tmp_path / "host", backup_on_change=timedelta(seconds=0.5))
    small.stack("shop", PLAIN)
    return small


@pytest.fixture
def root(host):
    return host.settings.docker_root


@contextmanager
def watching(host, **changes):
    ending = threading.Event()
    directories = Directories(replace(host.settings, **changes), ending)
    thread = threading.Thread(target=directories.run)
    thread.start()
    try:
        until((host.settings.state_dir / heartbeat.WATCHER).exists)
        until(lambda: host.store.note(KNOWN_NOTE))
        time.sleep(0.5)
        yield
    finally:
        ending.set()
        thread.join()


def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return found


def said(caplog, text):
    return until(lambda: [message for message in caplog.messages if text in message])


def notices(host):
    return [notice.message for notice in host.store.due_notices(datetime.now(UTC) + timedelta(seconds=5))]


def test_stacks_that_come_are_announced_once_also_those_that_came_unwatched(host, caplog):
    with watching(host):
        host.stack("wiki", PLAIN)
        said(caplog, "stack wiki is new")
        (message,) = until(lambda: notices(host))
    assert message.title == "wiki is a new stack"
    assert "nobody has decided yet whether it is backed up" in message.body

    host.stack("photos", LABELLED)
    with watching(host):
        said(caplog, "stack photos is new")
        message = until(lambda: notices(host)[1:])[0]
    assert "will be backed up" in message.body
    assert len(notices(host)) == 2


def test_a_change_has_everybody_look_anew_and_is_backed_up_once_it_rests(host, root, caplog):
    with watching(host):
        (root / "shop" / "compose.yaml").write_text(LABELLED)
        said(caplog, "stack shop has changed")
        until(lambda: host.store.requests().get("backup-config"))
        assert host.store.note(CHANGED_NOTE)
    assert notices(host) == []


def test_without_the_setting_a_change_is_not_backed_up(host, root, caplog):
    with watching(host, backup_on_change=timedelta(0)):
        (root / "shop" / ".env").write_text("A=1\n")
        said(caplog, "stack shop has changed")
        time.sleep(1.5)
    assert host.store.requests() == {}


def test_stacks_go_and_come_and_grow_from_directories_of_odd_names(host, root, caplog):
    odd = root / os.fsdecode(b"caf\xe9")
    odd.mkdir()
    with watching(host):
        (root / "shop").rename(root.parent / "away")
        said(caplog, "stack shop is gone")
        (root.parent / "away").rename(root / "shop")
        (odd / "compose.yaml").write_text(PLAIN)
        said(caplog, "stack shop is new")
        said(caplog, r"stack caf\xe9 is new")


def test_thousands_of_directories_are_looked_at_and_not_all_watched(host, root, caplog):
    for number in range(3000):
        (root / f"d{number}").mkdir()
    data = root / "shop" / "data"
    for number in range(2000):
        (data / str(number)).mkdir(parents=True)
    with watching(host):
        said(caplog, "more than 2000 directories")
        (data / "7" / "file").write_text("x")
        (root / "shop" / "compose.yaml").write_text(LABELLED)
        said(caplog, "stack shop has changed")


def test_docker_root_may_be_away_for_a_while(host, root, caplog):
    with watching(host):
        root.rename(root.parent / "away")
        said(caplog, "No such file or directory")
        (root.parent / "away").rename(root)
        host.stack("wiki", PLAIN)
        said(caplog, "stack wiki is new")


def test_a_history_that_was_moved_aside_is_opened_anew(host, caplog):
    with watching(host):
        for path in host.settings.state_dir.glob("stackward.sqlite*"):
            path.unlink()
        with host.opened() as anew:
            time.sleep(1)
            host.stack("wiki", PLAIN)
            assert "wiki" in until(lambda: anew.note(KNOWN_NOTE))


@contextmanager
def program(host, *prefix):
    settings = host.settings
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": ":".join(sys.path),
        "DOCKER_ROOT": str(settings.docker_root),
        "BACKUP_ROOT": str(settings.backup_root),
        "STACKWARD_VOLUME": str(settings.volume),
        "STACKWARD_STATE_DIR": str(settings.state_dir),
        "STACKWARD_CONFIG_DIR": str(settings.config_dir),
        "STACKWARD_LOG_DIR": str(settings.log_dir),
        "STACKWARD_DOCKER_HOST": settings.docker_host,
    }
    argv = [*prefix, sys.executable, "-m", "stackward.watcher"]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE) as process:
        try:
            until(lambda: host.store.note(KNOWN_NOTE))
            yield process
        finally:
            process.kill()


def test_the_program_ends_when_told_and_says_once_that_docker_is_away(host):
    with program(host) as process:
        time.sleep(3)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=10)
        assert process.returncode == 0
    messages = [json.loads(line)["message"] for line in output.splitlines()]
    assert len([message for message in messages if "no Docker Engine answers" in message]) == 1
    assert messages[-1] == "the watcher ends"


def test_where_the_kernel_grants_one_watch_it_goes_on_with_that_and_looks_more_often(host, caplog):
    """In a user namespace of its own, where the limit holds for nobody else."""
    script = 'echo 1 > /proc/sys/user/max_inotify_watches && exec "$@"'
    prefix = ["unshare", "-Ur", "sh", "-c", script, "sh"]
    if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    with program(host, *prefix):
        assert "max_user_watches" in until(lambda: host.store.note(heartbeat.WATCHER_LIMIT))
        host.stack("wiki", PLAIN)
        until(lambda: "wiki" in host.store.note(KNOWN_NOTE))


@pytest.fixture
def listening(host):
    ending = threading.Event()
    listener = Containers(replace(host.settings, docker_host=DOCKER_HOST), ending)
    listener.start()
    time.sleep(1)
    yield
    ending.set()


@pytest.fixture
def begin(api, image):
    """`begin(command)`: a container of a project of its own."""
    import docker.errors

    made = []

    def begin(*command):
        labels = {"com.docker.compose.project": f"stackward-unit-{uuid.uuid4().hex[:8]}"}
        one = api.create_container(image, command=list(command), labels=labels, stop_signal="SIGKILL")["Id"]
        made.append(one)
        api.start(one)
        return api.inspect_container(one)["Name"].lstrip("/")

    yield begin
    for one in made:
        with suppress(docker.errors.NotFound):
            api.remove_container(one, force=True, v=True)


def test_a_container_that_dies_has_the_health_job_look_one_that_is_stopped_does_not(
    host, listening, begin, api, caplog
):
    stopped = begin("sleep", "1000")
    api.stop(stopped, timeout=1)
    died = begin("sh", "-c", "exit 3")
    said(caplog, f"{died} of ")
    until(lambda: "health" in host.store.requests())
    assert [message for message in caplog.messages if stopped in message] == []
