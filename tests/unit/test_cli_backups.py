"""The verbs that look at backups and bring them back, from the command line to the files."""

import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from stackward.cli.main import main
from stackward.core.errors import ExitCode
from stackward.core.model import Outcome
from stackward.store import open_in
from unit.backups import config_backup, data_backup, seal, stack_entry, tree

NOW = datetime.now(UTC)


@pytest.fixture
def host(tmp_path, monkeypatch):
    for name in ("docker/shop/data", "backup", "state", "volume", "etc", "run"):
        (tmp_path / name).mkdir(parents=True)
    for name, value in {
        "DOCKER_ROOT": tmp_path / "docker",
        "BACKUP_ROOT": tmp_path / "backup",
        "STACKWARD_VOLUME": tmp_path / "volume",
        "STACKWARD_STATE_DIR": tmp_path / "state",
        "STACKWARD_CONFIG_DIR": tmp_path / "etc",
        "STACKWARD_RUN_DIR": tmp_path / "run",
        "STACKWARD_MINIMUM_FREE": "1",
        "STACKWARD_DOCKER_HOST": f"unix://{tmp_path}/no-docker.sock",
    }.items():
        monkeypatch.setenv(name, str(value))
    shop = tmp_path / "docker" / "shop"
    (shop / "compose.yaml").write_text("services: {web: {image: nginx, volumes: ['./data:/data']}}\n")
    (shop / "data" / "file").write_text("now")
    day = data_backup(tmp_path / "backup", "data-2026-11-02", NOW - timedelta(hours=1), {"shop": {"file": b"then"}})
    seal(day, NOW - timedelta(hours=1), stack_entry("shop", NOW - timedelta(hours=1), tree("shop", shop / "data")))
    config_backup(tmp_path / "backup", "configs-20261102_020000.tar.gz", {"./shop/compose.yaml": b"x"})
    return tmp_path


def called(capsys, *words):
    code = main(words)
    out, err = capsys.readouterr()
    return code, json.loads(out) if out.startswith(("{", "[")) else out, err


def test_list_shows_kind_date_stacks_size_and_when_it_was_verified(host, capsys):
    _, before, _ = called(capsys, "list")
    called(capsys, "verify")
    _, after, _ = called(capsys, "list")

    assert [(one["name"], one["kind"], one["stacks"], one["verified"]) for one in before] == [
        ("data-2026-11-02", "data", ["shop"], None),
        ("configs-20261102_020000.tar.gz", "config", [], None),
    ]
    assert [one["verified"] for one in after] == ["ok", "ok"]
    assert after[1]["size_bytes"] == os.stat(host / "backup" / "configs-20261102_020000.tar.gz").st_size
    assert [one["name"] for one in called(capsys, "list", "shop")[1]] == ["data-2026-11-02"]
    assert [one["kind"] for one in called(capsys, "list", "--kind", "config")[1]] == ["config"]


def test_list_says_nothing_of_a_backup_that_was_said_of_another_of_its_name(host, capsys):
    """A day that was made anew was booted by no drill; of damage that may be in it still, it tells."""
    with open_in(host / "state", NOW) as store:
        for made, at in (("before", NOW - timedelta(hours=2)), ("since", NOW)):
            store.record_drill("shop", at, Outcome.OK, "data-2026-11-02")
            store.record_verified("data-2026-11-02", at, Outcome.FAILED, 3, ["shop"])
            day = called(capsys, "list", "shop")[1][0]
            assert bool(day["booted_at"]) == (made == "since")
            assert (day["damaged"], day["damaged_before"]) == {"before": (None, 3), "since": (3, 0)}[made]
            assert ("not since 3 were damaged" in called(capsys, "list", "--human")[1]) == (made == "before")


def test_list_of_an_empty_root_and_for_people(host, capsys):
    assert "data-2026-11-02" in called(capsys, "list", "--human")[1]
    assert "no backup holds it" in called(capsys, "list", "wiki", "--human")[1]


def test_verify_exits_3_and_names_the_damage(host, capsys):
    (host / "backup" / "data-2026-11-02" / "shop" / "file").write_text("damaged")

    code, out, _ = called(capsys, "verify", "--human")

    assert code == ExitCode.DAMAGED
    assert "data-2026-11-02: damaged shop/file" in out
    assert called(capsys, "verify", "--new")[1]["artifacts"] == ["data-2026-11-02"]
    assert called(capsys, "verify", "configs-20261102_020000.tar.gz")[0] == ExitCode.OK


def test_a_lost_disk_is_refused_by_every_verb(host, capsys):
    (host / "backup").rename(host / "elsewhere")

    for words in (["list"], ["verify"], ["find", "x"], ["prune"], ["restore", "shop", "--force"]):
        code, out, err = called(capsys, *words)
        assert code == ExitCode.REFUSED, words
        assert "is the disk mounted?" in (json.dumps(out) + err)


def test_find_leads_to_restore(host, capsys):
    _, found, _ = called(capsys, "find", "file")
    (one,) = found["details"]["found"]
    (host / "docker" / "shop" / "data" / "file").unlink()

    code, _, _ = called(capsys, "restore", f"{one['stack']}:{one['path']}", "--from", one["backups"][0])

    assert code == ExitCode.OK
    assert (host / "docker" / "shop" / "data" / "file").read_text() == "then"


@pytest.mark.parametrize(
    "words",
    [
        *((what, *option) for what in ("shop", "config") for option in (("--to", "/srv"), ("--from", "2026-11-03"))),
        ("shop:file",),
        ("config", "shop"),
        ("config", "--missing"),
    ],
)
def test_an_undo_with_words_that_it_cannot_heed_undoes_nothing(host, capsys, words):
    code, _, err = called(capsys, "restore", *words, "--undo")
    assert code == ExitCode.USAGE
    assert "HINT: `stackward restore" in err


def test_an_undo_says_which_restore_it_takes_back_and_what_it_would(host, capsys):
    compose = host / "docker" / "shop" / "compose.yaml"
    (host / "docker" / "shop" / "data" / "file").unlink()
    assert called(capsys, "restore", "shop:file")[0] == ExitCode.OK
    assert called(capsys, "restore", "config", "shop")[0] == ExitCode.OK
    rows = {row["job"]: row for row in called(capsys, "runs")[1]}

    for what, job, named, change in (
        ("shop", "restore", "restore of shop:file from data-2026-11-02", "taken away, since nothing was there before"),
        ("config", "restore-config", "restore of configuration from configs-20261102_020000.tar.gz", "put back"),
    ):
        restored = f"{named} (run {rows[job]['id']}, {rows[job]['started_at'][:10]} "
        _, dry, _ = called(capsys, "restore", what, "--undo", "--dry-run", "--human")
        assert f"would take back: {restored}" in dry
        assert f"{change}: {host}/docker/shop/" in dry
        assert compose.read_text() == "x"
        _, done, _ = called(capsys, "restore", what, "--undo", "--human")
        assert f"took back: {restored}" in done
    assert compose.read_text() != "x"


def test_where_nothing_was_changed_there_is_nothing_to_undo(host, capsys):
    (host / "docker" / "shop" / "compose.yaml").write_text("x")

    for words in (["shop:file"], ["config", "shop", "--missing"]):
        code, out, _ = called(capsys, "restore", *words, "--human")
        assert code == ExitCode.OK
        assert "--undo" not in out


def test_restore_and_undo_of_a_stack(host, capsys):
    file = host / "docker" / "shop" / "data" / "file"

    refused, _, _ = called(capsys, "restore", "shop")
    assert (refused, file.read_text()) == (ExitCode.REFUSED, "now")

    assert called(capsys, "restore", "shop", "--dry-run", "--force")[0] == ExitCode.OK
    assert file.read_text() == "now"

    _, out, _ = called(capsys, "restore", "shop", "--force", "--human")
    assert file.read_text() == "then"
    assert "--undo puts it back" in out

    assert called(capsys, "restore", "shop", "--undo", "--force")[0] == ExitCode.OK
    assert file.read_text() == "now"
    assert called(capsys, "restore", "shop", "--undo")[0] == ExitCode.FAILED


def test_restore_of_the_configuration_and_back(host, capsys):
    compose = host / "docker" / "shop" / "compose.yaml"
    before = compose.read_text()

    assert called(capsys, "restore", "config", "shop")[0] == ExitCode.OK
    assert compose.read_text() == "x"

    assert called(capsys, "restore", "config", "--undo")[0] == ExitCode.OK
    assert compose.read_text() == before


@pytest.mark.parametrize(
    "words",
    [
        ["shop", "wiki"],
        ["shop", "--secrets"],
        ["config", "--overwrite"],
        ["shop", "--overwrite"],
        ["shop:", "--overwrite"],
    ],
)
def test_flags_that_do_not_fit_are_usage_errors(host, capsys, words):
    assert called(capsys, "restore", *words)[0] == ExitCode.USAGE


@pytest.mark.parametrize(
    "words",
    [
        ["restore", "nope"],
        ["restore", "shop", "--from", "2020-01-01"],
        ["restore", "config", "--from", "2020-01-01"],
        ["verify", "data-2020-01-01"],
    ],
)
def test_what_is_not_there_is_a_usage_error(host, capsys, words):
    assert called(capsys, *words)[0] == ExitCode.USAGE


def test_prune_says_why_and_a_dry_run_is_not_recorded(host, capsys):
    code, out, _ = called(capsys, "prune", "--dry-run", "--human")

    assert code == ExitCode.OK
    assert "the last good one" in out
    assert called(capsys, "runs")[1] == []
    assert called(capsys, "prune")[1]["details"]["removed"] == []
    assert [row["job"] for row in called(capsys, "runs")[1]] == ["prune"]


def test_prune_names_the_parts_that_went_where_the_day_stays(host, capsys, monkeypatch):
    monkeypatch.setenv("BACKUP_RETENTION_DAYS", "7")
    backup, old = host / "backup", NOW - timedelta(days=400)
    day = data_backup(backup, f"data-{old:%Y-%m-%d}", old, {"shop": {"file": b"then"}, "gone": {"file": b"then"}})
    seal(day, old, stack_entry("shop", old, tree("shop")), stack_entry("gone", old, tree("gone")))

    _, out, _ = called(capsys, "prune", "--human")

    assert f"prune ok  removed shop from {day.name}\n" in out
    assert f"removed shop from {day.name}" in called(capsys, "runs", "--human")[1]
    assert (day / "gone" / "file").exists()
