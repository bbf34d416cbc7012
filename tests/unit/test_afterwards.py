"""After a chain: who is told what, what is kept for metrics, and what is sent."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from stackward.core.errors import SettingsError
from stackward.core.model import JobResult, Outcome, StackResult
from stackward.observe.notice import Channel
from stackward.runner import ChainResult
from stackward.week import afterwards
from stackward.wiring import Appliance, build
from unit.hosts import SmallHost
from unit.receivers import free_port, http, receive_gelf_udp, refuses

COMPOSE = """
    services:
      web:
        image: x
        volumes: ["./data:/data"]
        labels: {stackward.backup: "true"}
"""


class Fixed(Appliance):
    """An appliance whose clock stands where the test puts it."""

    at = datetime(2026, 11, 21, 2, 4, tzinfo=UTC)

    def now(self):
        return self.at


@pytest.fixture
def made(tmp_path):
    host = SmallHost(tmp_path / "host")
    host.store.close()
    wired = build(host.settings)
    appliance = Fixed(wired.settings, wired.locks, wired.store)
    yield appliance
    appliance.close()


@pytest.fixture
def stack(made):
    directory = made.settings.docker_root / "shop"
    (directory / "data").mkdir(parents=True)
    (directory / "compose.yaml").write_text(COMPOSE.replace("\n    ", "\n"))


def result(*parts, job="backup-data", outcome=None, reasons=()):
    worst = Outcome.worst([part.outcome for part in parts]) if outcome is None else outcome
    return ChainResult(((job, JobResult(worst, reasons, parts)),))


def failed(stack, why="disk full"):
    return StackResult(stack, Outcome.FAILED, (why,))


def ok(stack):
    return StackResult(stack, Outcome.OK)


def report(appliance, chain_result, **more):
    return afterwards.report(appliance, chain_result, trigger="schedule", **more)


LATER = datetime(2100, 1, 1, tzinfo=UTC)  # than these tests' clock, and than the real one, which a command goes by


def bodies(appliance, channel=Channel.NOTIFY):
    return [one.message.body for one in appliance.store.due_notices(LATER) if one.channel is channel]


def test_a_failure_is_told_once_and_its_end_once(made):
    run_id = made.store.begin_run("backup-data", made.at - timedelta(days=1), "schedule")
    made.store.end_run(run_id, made.at - timedelta(days=1, minutes=1), result(ok("shop")).steps[0][1])
    report(made, result(failed("shop"), ok("wiki"), ok("site")))
    report(made, result(failed("shop", "disk still full"), ok("wiki"), ok("site")))
    assert bodies(made) == [
        (
            "shop failed at 02:04: disk full. Last good: yesterday 02:03. The other 2 are fine. "
            "Next: `stackward backup shop`"
        )
    ]
    made.at += timedelta(hours=1)
    report(made, result(ok("shop")))
    assert bodies(made)[1:] == ["shop is fine again; it had failed since 02:04."]


def test_a_chain_is_one_message(made):
    whole = JobResult(Outcome.FAILED, ("wrong disk", "HINT: mount it"))
    report(made, ChainResult((("backup-config", whole), ("backup-data", whole), ("prune", JobResult(Outcome.SKIPPED)))))
    (body,) = bodies(made)
    assert [line.partition(":")[0] for line in body.splitlines()] == [
        "backup-config failed at 02",
        "backup-data failed at 02",
    ]
    good = JobResult(Outcome.OK)
    report(made, ChainResult((("backup-config", good), ("backup-data", whole))))
    assert bodies(made)[1:] == ["backup-config is fine again; it had failed since 02:04."]


def test_a_run_of_one_stack_says_nothing_of_the_others(made):
    report(made, result(failed("shop"), failed("wiki")))
    report(made, result(ok("shop")))
    assert list(made.store.alerts("backup-data")) == ["wiki"]


def test_who_failed_before_is_not_called_fine(made):
    report(made, result(failed("shop"), ok("wiki"), ok("site")))
    report(made, result(failed("shop"), failed("wiki"), ok("site")))
    assert "1 other is fine, 1 still fails." in bodies(made)[1]


def test_a_job_that_failed_as_a_whole_says_nothing_of_stacks_and_recovers(made):
    report(made, result(failed("shop")))
    report(made, result(outcome=Outcome.FAILED, reasons=("wrong disk", "HINT: mount it")))
    assert bodies(made)[1].endswith("wrong disk. It never succeeded before. Next: mount it")
    assert set(made.store.alerts("backup-data")) == {"shop", ""}
    report(made, result(ok("shop")))
    assert made.store.alerts("backup-data") == {}


def test_what_was_skipped_changes_nothing(made):
    report(made, result(failed("shop")))
    report(made, result(StackResult("shop", Outcome.SKIPPED), outcome=Outcome.SKIPPED))
    report(made, result(StackResult("shop", Outcome.SKIPPED), ok("wiki")))
    assert list(made.store.alerts("backup-data")) == ["shop"]


def test_a_chain_that_could_not_begin_is_fine_again_once_it_does(made):
    report(made, result(job="nightly", outcome=Outcome.FAILED, reasons=("no DOCKER_ROOT",)), chain="nightly")
    assert list(made.store.alerts("nightly")) == [""]
    report(made, result(ok("shop")), chain="nightly")
    assert made.store.alerts("nightly") == {}


@pytest.mark.parametrize(
    ("chain", "outcome", "pings"),
    [
        ("nightly", Outcome.OK, [""]),
        ("nightly", Outcome.WARN, [""]),
        ("nightly", Outcome.FAILED, ["fail"]),
        ("nightly", Outcome.SKIPPED, []),
        ("weekly", Outcome.OK, []),
        ("retry", Outcome.OK, [""]),
        ("retry", Outcome.FAILED, []),
        ("", Outcome.OK, []),
    ],
)
def test_the_dead_mans_switch_hears_of_nights(made, chain, outcome, pings):
    made.settings = replace(made.settings, ping_url="https://example.org/uuid")
    report(made, result(job="backup-data", outcome=outcome), chain=chain)
    assert bodies(made, Channel.PING) == pings


def test_a_retry_of_some_is_no_good_night_while_others_fail(made):
    made.settings = replace(made.settings, ping_url="https://example.org/uuid")
    report(made, result(failed("shop"), failed("wiki")), chain="nightly")
    report(made, result(ok("shop")), chain="retry")
    assert bodies(made, Channel.PING) == ["fail"]


def test_what_metrics_say_is_renewed(made, stack):
    assert made.facts().view is None
    assert report(made, result(ok("shop"))) == []
    view = made.facts().view
    assert [(one.name, one.state, one.cause) for one in view.stacks] == [("shop", "unprotected", "never-backed-up")]
    assert view.intervals["backup-data"] == 86400
    assert view.intervals["weekly"] == 7 * 86400


def test_without_a_schedule_no_interval_is_promised(made):
    made.settings = replace(made.settings, schedule=False)
    assert afterwards.intervals(made) == {}


def test_a_log_server_gets_the_outcomes(made):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        made.settings = replace(made.settings, gelf_url=f"udp://127.0.0.1:{receiver.getsockname()[1]}")
        assert report(made, result(failed("shop")), send_log=True) == []
        job, shop = receive_gelf_udp(receiver, 2)
    assert (job["_job"], job["_outcome"], job["_trigger"]) == ("backup-data", "failed", "schedule")
    assert (shop["_stack"], shop["host"]) == ("shop", made.host_name)


def test_a_pushgateway_that_is_away_or_refuses_is_a_warning(made):
    made.settings = replace(made.settings, pushgateway_url=f"http://127.0.0.1:{free_port()}")
    (warning,) = report(made, result(ok("shop")), push_metrics=True)
    assert warning.startswith("metrics were not pushed: the Pushgateway did not take the metrics")
    with http(refuses) as gateway:
        made.settings = replace(made.settings, pushgateway_url=f"http://user:p%40ss@{gateway.address}/")
        (warning,) = report(made, result(ok("shop")), push_metrics=True)
    assert "500" in warning
    assert "p@ss" not in warning


def test_what_hangs_has_a_time_limit(made):
    began = datetime.now(UTC)
    with pytest.raises(TimeoutError, match="not done within"):
        afterwards._within(lambda: socket.create_server(("127.0.0.1", 0)).accept(), seconds=0.5)
    assert datetime.now(UTC) - began < timedelta(seconds=5)


def test_what_has_no_address_is_refused_before_anything_is_run(made):
    with pytest.raises(SettingsError, match="--push-metrics"):
        afterwards.require_targets(made, push_metrics=True, send_log=False)
    with pytest.raises(SettingsError, match="--send-log"):
        afterwards.require_targets(made, push_metrics=False, send_log=True)
    afterwards.require_targets(made, push_metrics=False, send_log=False)


def test_a_webhook_that_hangs_holds_up_no_backup(made, stack, tmp_path):
    """The message waits in the store; no connection is made by whoever backs up."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": ":".join(sys.path),
            "DOCKER_ROOT": str(made.settings.docker_root),
            "BACKUP_ROOT": str(tmp_path / "nowhere"),
            "STACKWARD_STATE_DIR": str(made.settings.state_dir),
            "STACKWARD_CONFIG_DIR": str(made.settings.config_dir),
            "STACKWARD_DOCKER_HOST": made.settings.docker_host,
            "STACKWARD_NOTIFY_URLS": f"json://127.0.0.1:{silent.getsockname()[1]}/",
        }
        argv = [sys.executable, "-m", "stackward.cli.main", "backup", "--config"]
        done = subprocess.run(argv, env=environment, capture_output=True, check=False, timeout=60)
        silent.setblocking(False)
        with pytest.raises(BlockingIOError):
            silent.accept()
    assert done.returncode == 4
    assert "is the disk mounted?" in bodies(made)[0]
