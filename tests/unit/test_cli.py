"""The command line as a whole: real settings, store, Compose and rsync; no Docker Engine answers."""

import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from stackward.cli.main import VERBS, main
from stackward.steps.report import heartbeat
from stackward.steps.restore import kept
from stackward.store import Store
from stackward.tools.locks import Locks

LABELLED = """
services:
  web:
    image: nginx
    labels: {stackward.backup: "true"}
    volumes: ["./data:/data"]
"""
UNLABELLED = "services: {web: {image: nginx}}\n"


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host's directories, and the settings that point to them."""
    for name in ("docker", "backup", "state", "volume", "etc", "run"):
        (tmp_path / name).mkdir()
    for name, value in {
        "DOCKER_ROOT": tmp_path / "docker",
        "BACKUP_ROOT": tmp_path / "backup",
        "STACKWARD_VOLUME": tmp_path / "volume",
        "STACKWARD_STATE_DIR": tmp_path / "state",
        "STACKWARD_CONFIG_DIR": tmp_path / "etc",
        "STACKWARD_RUN_DIR": tmp_path / "run",
        "STACKWARD_MINIMUM_FREE": "1",
        "TZ": "Europe/Berlin",
    }.items():
        monkeypatch.setenv(name, str(value))
    return tmp_path


@pytest.fixture
def stack(host):
    shop = host / "docker" / "shop"
    (shop / "data").mkdir(parents=True)
    (shop / "data" / "file").write_text("hello\n")
    (shop / "compose.yaml").write_text(LABELLED)
    return shop


def called(capsys, *words):
    """The exit code, standard output (parsed where it is JSON) and standard error."""
    code = main(words)
    out, err = capsys.readouterr()
    return code, json.loads(out) if out.startswith(("{", "[")) else out, err


def usage(capsys, *words):
    """Standard error of a command line that is wrong."""
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_names_every_verb(capsys, word):
    code, out, _ = called(capsys, word)
    assert code == 0
    assert all(f"  {verb} " in out for verb in VERBS)


def test_help_imports_nothing_that_takes_long():
    script = "import sys; from stackward.cli.main import main; main(['--help']); print([*sys.modules])"
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    out = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, env=environment).stdout
    assert b"'stackward.cli.main'" in out
    for module in (b"'rich'", b"'docker'", b"'sqlite3'", b"'stackward.wiring'"):
        assert module not in out


def test_no_words_at_all_show_the_help_as_a_mistake(capsys):
    code, out, _ = called(capsys)
    assert code == 2
    assert "usage: stackward VERB" in out


def test_version(capsys):
    assert called(capsys, "--version")[1].startswith("stackward 0.")


def test_a_verb_that_is_none_gets_the_nearest(capsys):
    assert "did you mean `stackward status`?" in usage(capsys, "staus")
    assert "names them all" in usage(capsys, "zzzz")


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_says_what_it_takes(capsys, verb):
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])
    assert caught.value.code == 0
    assert f"usage: stackward {verb}" in capsys.readouterr().out


def test_an_option_that_is_none_is_usage(capsys):
    assert "HINT: `stackward runs --help`" in usage(capsys, "runs", "--frobnicate")


def test_wrong_settings_are_all_told_at_once(capsys, host, monkeypatch):
    monkeypatch.setenv("STACKWARD_SCHEDULE", "perhaps")
    monkeypatch.setenv("TZ", "Mars/Olympus")
    code, _, err = called(capsys, "runs")
    assert code == 2
    assert "STACKWARD_SCHEDULE" in err
    assert "TZ" in err


def test_what_every_verb_takes_may_stand_before_it(capsys, host):
    assert main(["--json", "runs", "--limit", "1"]) == 0
    assert capsys.readouterr().out.strip() == "[]"
    assert main(["--human", "runs"]) == 0
    assert "nothing was run yet" in capsys.readouterr().out


def test_the_first_status_says_that_nobody_decided(capsys, host):
    (host / "docker" / "blog").mkdir()
    (host / "docker" / "blog" / "compose.yaml").write_text(UNLABELLED)
    code, status, _ = called(capsys, "status")
    assert code == 0
    assert status["summary"] == "0 of 1 stacks decided; run `stackward init`"
    assert status["stacks"][0]["state"] == "undecided"
    assert list((host / "backup").iterdir()) == []


def test_a_backup_makes_a_stack_protected_and_can_be_seen(api, capsys, stack):
    assert called(capsys, "status")[1]["stacks"][0]["state"] == "unprotected"

    code, result, _ = called(capsys, "backup", "--verify")
    assert code == 0
    assert [step["job"] for step in result["steps"]] == ["backup-config", "backup-data", "verify", "prune"]

    status = called(capsys, "status")[1]
    assert (status["summary"], status["stacks"][0]["state"]) == ("1 of 1 stacks protected", "protected")
    runs = called(capsys, "runs")[1]
    assert [run["job"] for run in runs] == ["prune", "verify", "backup-data", "backup-config"]
    assert all(run["outcome"] == "ok" and run["trigger"] == "cli" for run in runs)
    [of_shop] = called(capsys, "runs", "shop", "--job", "backup-data")[1]
    assert (of_shop["stack"], of_shop["counts"]["files"]) == ("shop", 1)


@pytest.mark.parametrize("words", [(), ("shop",)])
def test_a_stack_whose_directory_went_is_not_protected_until_that_is_accepted(api, capsys, stack, words):
    called(capsys, "backup")
    shutil.rmtree(stack)
    [told] = called(capsys, "status", *words)[1]["stacks"]
    assert (told["stack"], told["state"], told["cause"]) == ("shop", "unprotected", "directory-gone")
    assert told["last_good"]
    assert "stackward restore config shop" in told["reasons"][0]
    assert "gone" in called(capsys, "--human", "status", *words)[1]
    called(capsys, "accept", "shop")
    assert called(capsys, "status")[1]["stacks"] == []


@pytest.mark.parametrize(
    ("flags", "jobs"),
    [
        ((), ["backup-config", "backup-data", "prune"]),
        (("--config",), ["backup-config", "prune"]),
        (("--data",), ["backup-config", "backup-data", "prune"]),
        (("shop",), ["backup-config", "backup-data"]),
        (("--data", "--verify"), ["backup-config", "backup-data", "verify", "prune"]),
    ],
)
def test_flags_mean_what_they_meant(capsys, stack, flags, jobs):
    _, result, _ = called(capsys, "backup", *flags)
    assert [step["job"] for step in result["steps"]] == jobs


@pytest.mark.parametrize("words", [["backup", "--config"], ["run", "backup-config"]])
def test_a_config_backup_that_is_asked_for_and_cannot_be_says_why(capsys, host, stack, words):
    (stack / "compose.yaml").write_text(UNLABELLED)
    code, _, err = called(capsys, *words)
    assert code == 2
    assert "no stack is opted in, so nothing was backed up" in err
    assert "HINT: `stackward init`" in err
    assert called(capsys, "runs")[1] == []


@pytest.mark.parametrize("flag", ["--replicate", "--replicate-logs", "--push-metrics", "--send-log"])
def test_what_is_not_there_yet_does_not_seem_done(capsys, host, stack, flag):
    code, _, err = called(capsys, "backup", flag)
    assert code == 2
    assert f"{flag}: " in err
    assert list((host / "backup").iterdir()) == []


def test_a_dry_run_changes_nothing(capsys, host, stack):
    code, result, _ = called(capsys, "backup", "--dry-run")
    assert code == 0
    assert result["steps"][1]["details"]["stacks"][0]["stack"] == "shop"
    assert list((host / "backup").iterdir()) == []
    assert called(capsys, "runs")[1] == []


def test_a_dry_run_shows_people_what_would_be_copied_and_how(capsys, stack):
    compose = (stack / "compose.yaml").read_text()
    hooks = ", stackward.backup.pre: sync, stackward.backup.dump: postgres}"
    (stack / "compose.yaml").write_text(compose.replace("}", hooks).replace('"]', '", "./new:/new"]'))
    lines = [line.strip() for line in called(capsys, "backup", "--dry-run", "--human")[1].splitlines()]
    assert f"{stack}/data → shop: full scan: it is not on the volume" in lines
    assert any(line.endswith("copied live, then again while quiesced") for line in lines)
    assert f"{stack}/new: not copied: it does not exist yet" in lines
    assert "nothing would stand still: no running container has to" in lines
    assert "pre hook of web: sync" in lines
    assert "dump of web: postgres" in lines
    assert "nothing to remove" in lines
    asked = called(capsys, "backup", "--dry-run", "--human", "--full-scan")[1]
    assert "shop: full scan: a full scan was asked for" in asked


@pytest.mark.parametrize("limit", ["-1", "0", "1" * 30, "many"])
def test_a_limit_that_makes_no_sense_is_usage(capsys, host, limit):
    assert "must be a number from 1 to " in usage(capsys, "runs", f"--limit={limit}")
    assert "must be a number from 1 to " in usage(capsys, "staging", "logs", "shop", f"--lines={limit}")


@pytest.mark.parametrize("pause", ["0", "100000d", "9" * 400 + "w", ""])
def test_a_pause_that_makes_no_sense_is_usage_and_pauses_nothing(capsys, host, pause):
    code, _, err = called(capsys, "jobs", "--pause", pause)
    assert code == 2
    assert "--pause must be" in err
    assert called(capsys, "jobs")[1]["paused_until"] is None


def test_observability_with_nobody_to_ask_is_off_and_not_in_the_history(capsys, host):
    code, result, _ = called(capsys, "observability")
    assert (code, result["outcome"]) == (0, "skipped")
    assert called(capsys, "runs", "--all")[1] == []
    [job] = [job for job in called(capsys, "jobs")[1]["jobs"] if job["job"] == "observability"]
    assert job["off"].startswith("nobody to ask")
    assert job["next"] is None
    assert "off: nobody to ask" in " ".join(called(capsys, "jobs", "--human")[1].split())


def test_metrics_have_no_json(capsys, host):
    code, out, err = called(capsys, "metrics", "--json")
    assert (code, out) == (2, "")
    assert "HINT: `stackward status --json`" in err


def test_a_stack_that_is_none_gets_the_nearest(capsys, stack):
    code, _, err = called(capsys, "backup", "shpo")
    assert code == 2
    assert "HINT: did you mean shop?" in err


def test_a_missing_disk_is_refused(capsys, host, stack):
    (host / "backup").rmdir()
    code, result, _ = called(capsys, "backup")
    assert code == 4
    assert "is the disk mounted?" in " ".join(result["steps"][1]["reasons"])
    assert "cannot be used" in called(capsys, "status")[1]["stacks"][0]["reasons"][0]


def test_who_comes_second_is_busy(capsys, host, stack):
    with Locks(host / "state" / "locks").hold("backup-root", what="prune"):
        code, _, err = called(capsys, "backup")
    assert code == 75
    assert f"in use by prune (process {os.getpid()})" in err
    assert called(capsys, "runs")[1] == []


def test_who_waits_can_be_interrupted(capsys, host, stack):
    with (
        Locks(host / "state" / "locks").hold("backup-root", what="prune"),
        subprocess.Popen(
            [sys.executable, "-m", "stackward.cli.main", "backup", "--wait"],
            env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
            stderr=subprocess.PIPE,
        ) as waiting,
    ):
        assert b"waiting for prune" in waiting.stderr.readline()
        waiting.send_signal(signal.SIGTERM)
        assert waiting.stderr.readline() == b"stackward: interrupted (SIGTERM)\n"
        assert waiting.wait(timeout=10) == 1
    assert called(capsys, "runs")[1] == []


def test_a_chain_run_by_hand_is_recorded_under_its_name(api, capsys, stack):
    code, result, _ = called(capsys, "run", "nightly")
    assert code == 0
    assert [step["job"] for step in result["steps"]] == ["backup-config", "backup-data", "verify", "prune"]
    jobs = {job["job"]: job for job in called(capsys, "jobs")[1]["jobs"]}
    assert jobs["nightly"]["last_outcome"] == "ok"
    assert (jobs["weekly"]["last_outcome"], jobs["weekly"]["schedule"]) == (None, "0 3 * * 0")


def test_a_retry_with_nothing_to_retry_does_nothing(capsys, stack):
    code, result, _ = called(capsys, "run", "retry")
    assert (code, result["steps"]) == (0, [])


def test_a_job_run_by_hand_is_recorded_under_its_name_alone(capsys, stack):
    code, result, _ = called(capsys, "run", "backup-config")
    assert (code, [step["job"] for step in result["steps"]]) == (0, ["backup-config"])
    assert [row["job"] for row in called(capsys, "runs")[1]] == ["backup-config"]


def test_the_switched_off_schedule_has_no_next_run_and_says_why(capsys, host, monkeypatch):
    monkeypatch.setenv("STACKWARD_SCHEDULE", "false")
    jobs = called(capsys, "jobs")[1]["jobs"]
    assert {(job["next"], job["off"]) for job in jobs} == {(None, "STACKWARD_SCHEDULE is false")}


def test_jobs_says_what_settings_made_of_the_week(capsys, host, monkeypatch):
    monkeypatch.setenv("STACKWARD_SCHEDULE_WEEKLY", "off")
    monkeypatch.setenv("STACKWARD_SCHEDULE_NIGHTLY", "15  4 * * *")
    monkeypatch.setenv("TZ", "Europe/Berlin")
    jobs = {job["job"]: job for job in called(capsys, "jobs")[1]["jobs"]}
    assert (jobs["weekly"]["next"], jobs["weekly"]["off"]) == (None, "STACKWARD_SCHEDULE_WEEKLY is off")
    assert jobs["nightly"]["schedule"] == "15 4 * * *"
    assert "T04:15:00+0" in jobs["nightly"]["next"]
    assert "off: STACKWARD_SCHEDULE_WEEKLY is off" in called(capsys, "jobs", "--human")[1]


def test_jitter_moves_each_job_by_the_same_time_whenever_it_is_asked(capsys, host, monkeypatch):
    monkeypatch.setenv("STACKWARD_JITTER", "1h")
    once, again = (called(capsys, "jobs")[1]["jobs"] for _ in range(2))
    assert [job["next"] for job in once] == [job["next"] for job in again]
    assert [job["next"] for job in once if job["job"] == "nightly" and "T02:00:00" in job["next"]] == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("STACKWARD_SCHEDULE_NIGHTLY", "0 25 * * *", "Bad hour"),
        ("STACKWARD_SCHEDULE_HEALTH", "0 0 30 2 *", "Bad day-of-month"),
        ("STACKWARD_SCHEDULE_WEEKLY", "sometimes", "five fields"),
        ("STACKWARD_SCHEDULE_WEEKLI", "off", "did you mean STACKWARD_SCHEDULE_WEEKLY?"),
        ("TZ", "Europe/Atlantis", "must be the name of a time zone"),
        ("STACKWARD_JITTER", "much", "must be a duration"),
    ],
)
def test_a_time_that_cannot_be_is_an_error_with_the_variables_name(capsys, host, monkeypatch, name, value, said):
    monkeypatch.setenv(name, value)
    code, _, err = called(capsys, "jobs")
    assert code == 2
    assert name in err
    assert said in err


def test_a_pause_is_said_and_ends_when_told(capsys, host):
    assert called(capsys, "jobs")[1]["paused_until"] is None
    assert called(capsys, "jobs", "--pause", "2h")[1]["paused_until"] is not None
    assert "nothing begins by itself until" in called(capsys, "jobs", "--human")[1]
    assert called(capsys, "jobs", "--resume")[1]["paused_until"] is None
    assert called(capsys, "jobs", "--pause", "for ever")[0] == 2


@pytest.mark.parametrize("verb", ["status", "runs", "jobs", "backup"])
def test_people_get_tables_even_through_a_pipe(api, capsys, stack, verb):
    called(capsys, "backup", "--human")
    code, out, _ = called(capsys, verb, "--human")
    assert code == 0
    assert isinstance(out, str)
    assert {"status": "protected", "runs": "backup-data", "jobs": "nightly", "backup": "shop"}[verb] in out


def test_a_damaged_history_is_told_and_begun_anew(api, capsys, host, stack):
    (host / "state" / "stackward.sqlite").write_bytes(b"no database" * 500)
    code, _, err = called(capsys, "backup")
    assert code == 0
    assert "the run history was damaged" in err


@pytest.mark.parametrize(("days", "stays"), [(6, True), (8, False)])
def test_what_a_restore_replaced_goes_after_a_week(api, capsys, host, stack, days, stays):
    aside = stack / ".stackward-kept" / "run-1"
    aside.mkdir(parents=True)
    at = (datetime.now(UTC) - timedelta(days=days)).isoformat()
    entry = kept.Entry(str(stack / "data"), str(aside / "data"))
    kept.write(host / "state" / "kept", kept.Record("run-1", at, "shop", "shop", (entry,), (str(aside),), done=True))

    assert called(capsys, "backup")[0] == 0
    assert aside.exists() == stays


def schedule_findings(capsys):
    found = called(capsys, "check")[1]["findings"]
    return {(one["severity"], one["text"]) for one in found if one["topic"] in ("schedule", "watcher")}


def test_check_says_what_will_run_when_and_what_will_not(capsys, host, monkeypatch):
    monkeypatch.setenv("STACKWARD_SCHEDULE_NIGHTLY", "15 4 * * *")
    monkeypatch.setenv("STACKWARD_SCHEDULE_AUDIT", "off")
    monkeypatch.setenv("STACKWARD_JITTER", "10m")
    found = schedule_findings(capsys)
    (nightly,) = [text for severity, text in found if severity == "ok" and text.startswith("nightly")]
    assert nightly.startswith("nightly runs at `15 4 * * *`: next ")
    assert nightly.endswith(" or up to 10m later")
    assert ("info", "audit is off: STACKWARD_SCHEDULE_AUDIT is off") in found


def test_check_says_that_it_is_paused_that_a_job_stays_away_and_that_the_watcher_is_blind(capsys, host):
    state = host / "state"
    with Store.open(state / "stackward.sqlite", now=datetime.now(UTC), locks=Locks(state / "locks")) as store:
        store.begin_run("nightly", datetime.now(UTC) - timedelta(days=4), "schedule")
        store.pause(datetime.now(UTC) + timedelta(hours=2))
        store.set_note(heartbeat.WATCHER_LIMIT, "no further watches\nHINT: raise it")
    (state / heartbeat.WATCHER).touch()
    warnings = [text for severity, text in schedule_findings(capsys) if severity == "warn"]
    assert len(warnings) == 3
    assert "nightly last began 4d ago, and should more often" in "\n".join(warnings)
    assert "it is paused" in "\n".join(warnings)
    assert "not everything is watched, so that changes are seen later: no further watches" in warnings
    os.utime(state / heartbeat.WATCHER, (0, 0))
    assert [text for _, text in schedule_findings(capsys) if "the watcher's last sign of life" in text]
