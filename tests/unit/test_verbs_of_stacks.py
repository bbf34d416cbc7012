"""stacks, check, init and accept as they are called; Compose and age are real, no Docker Engine answers."""

import json
import os
from datetime import UTC, datetime

import pytest
import yaml

from stackward.cli.main import main
from stackward.steps.report import recovery_sheet
from stackward.tools import age
from unit.hosts import NOW, SmallHost

pytestmark = pytest.mark.usefixtures("needs_compose")

LABELLED = """
    services:
      web:
        image: nginx
        labels: {stackward.backup: "true"}
        volumes: ["./data:/data", "./conf:/conf:ro"]
"""
DATABASE = "services:\n  db:\n    image: postgres:17\n    volumes: ['./pg:/pg']\n"


@pytest.fixture
def host(tmp_path, monkeypatch):
    small = SmallHost(tmp_path / "host")
    for name, value in {**small.environment, "STACKWARD_MINIMUM_FREE": "1"}.items():
        monkeypatch.setenv(name, value)
    small.store.close()
    return small


@pytest.fixture
def call(capsys):
    def called(*words):
        code = main(words)
        out, err = capsys.readouterr()
        return code, json.loads(out) if out.startswith("{") else out, err

    return called


class TestStacks:
    def test_trees_sizes_what_covers_them_and_why_not(self, host, call):
        host.stack("shop", LABELLED, data__a="12345", conf__b="1")
        code, document, _ = call("stacks")
        assert code == 0
        (stack,) = document["stacks"]
        data, conf = stack["trees"]
        assert (data["name"], data["size"]["bytes"], data["covered"]) == ("data", 5, True)
        assert data["covered_by"].startswith("data backup")
        assert (conf["name"], conf["covered"], conf["why_not"]) == ("conf", False, "read-only for the stack")

    def test_a_tree_of_an_undecided_stack_is_covered_by_nothing(self, host, call):
        host.stack("shop", "services: {web: {image: nginx}}", data__a="1")
        (tree,) = call("stacks")[1]["stacks"][0]["trees"]
        assert (tree["covered"], tree["why_not"]) == (False, "nobody decided")

    def test_the_table_shows_names_that_are_no_text(self, host, call):
        host.stack(b"caf\xe9 x", LABELLED, data__a="1")
        code, text, _ = call("stacks", "--human")
        assert code == 0
        assert "caf\\xe9 x" in text
        assert "backed up" in text

    def test_a_stack_that_is_none_is_a_mistake_of_usage(self, host, call):
        host.stack("shop", LABELLED)
        code, _, err = call("stacks", "shpo")
        assert code == 2
        assert "did you mean shop?" in err

    def test_no_docker_root(self, host, call):
        host.settings.docker_root.rmdir()
        code, _, err = call("stacks")
        assert code == 1
        assert "DOCKER_ROOT" in err


class TestCheck:
    def findings(self, call):
        code, document, _ = call("check")
        return code, {(f["severity"], f["topic"]): f for f in document["findings"]}, document["findings"]

    def test_every_finding_that_is_not_good_says_what_to_do(self, host, call):
        host.stack("shop", LABELLED, data__a="1", _dot_env="A=1")
        host.stack("db", DATABASE)
        host.stack("bad", "services: {web: {image: nginx, labels: {stackward.bakcup: 'true'}}}")
        code, _, findings = self.findings(call)
        assert code == 1
        assert all(f["advice"] for f in findings if f["severity"] in ("error", "warn"))
        texts = "\n".join(f"{f['severity']} {f['text']}" for f in findings)
        assert "error no Docker Engine answers" in texts
        assert "error bad, service web: stackward.bakcup" in texts
        assert "error the secrets of shop" in texts
        assert "1 of 3 stacks are neither switched on nor off: db" in texts
        assert "warn BACKUP_ROOT is on the same disk" in texts
        assert "error the daemon never ran here" in texts

    @pytest.mark.parametrize("name", ["shop", b"caf\xe9"])
    def test_a_tree_that_is_not_there(self, host, call, name):
        host.stack(name, LABELLED.replace("./data", "./library"))
        assert any("library does not exist" in f["text"] for f in self.findings(call)[2])

    @pytest.mark.usefixtures("host")
    def test_settings_that_are_wrong_are_a_finding_and_exit_code_2(self, call, monkeypatch):
        monkeypatch.setenv("STACKWARD_SHRINK_LIMIT", "lots")
        code, by_topic, _ = self.findings(call)
        assert code == 2
        assert "STACKWARD_SHRINK_LIMIT" in by_topic["error", "settings"]["text"]

    def test_a_recipient_that_age_does_not_take(self, host, call, monkeypatch):
        host.stack("shop", LABELLED)
        monkeypatch.setenv("STACKWARD_AGE_RECIPIENTS", "age1nonsense")
        found = [f for f in self.findings(call)[2] if f["topic"] == "secrets"]
        assert [f["severity"] for f in found] == ["error"]
        assert "age1nonsense" in found[0]["text"]

    def test_a_first_backup_that_does_not_fit(self, host, call, monkeypatch):
        directory = host.stack("shop", LABELLED, data__a="1")
        with open(directory / "data" / "large", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, 1 << 20)
        monkeypatch.setenv("STACKWARD_MINIMUM_FREE", str(10**18))
        texts = [f["text"] for f in self.findings(call)[2] if f["topic"] == "space"]
        assert len(texts) == 2
        assert "a first backup takes 1 MiB" in texts[1] or "a first backup takes 1.0 MiB" in texts[1]

    @pytest.mark.parametrize(("content", "word"), [("other\n", "another ID file"), (None, "no ID file")])
    def test_another_disk_under_backup_root(self, host, call, content, word):
        (host.settings.state_dir / "backup-root-id").write_text("mine\n")
        if content:
            (host.settings.backup_root / ".stackward-id").write_text(content)
        assert any(word in f["text"] for f in self.findings(call)[2] if f["severity"] == "error")

    def test_the_right_disk(self, host, call):
        for path in (host.settings.state_dir / "backup-root-id", host.settings.backup_root / ".stackward-id"):
            path.write_text("mine\n")
        assert any("is the disk that it was" in f["text"] for f in self.findings(call)[2])

    def test_no_backup_root(self, host, call):
        host.settings.backup_root.rmdir()
        assert any("is the disk mounted" in f["advice"] for f in self.findings(call)[2])

    def test_a_clock_that_was_set_back(self, host, call):
        with host.opened() as store:
            store.begin_run("backup-data", datetime(2999, 1, 1, tzinfo=UTC), "schedule")
        assert any("set back" in f["text"] for f in self.findings(call)[2])

    def test_backups_that_another_program_makes(self, host, call):
        (host.settings.backup_root / f"data-{datetime.now(UTC):%Y-%m-%d}" / "shop").mkdir(parents=True)
        assert any("old cron lines" in f["text"] for f in self.findings(call)[2])

    def test_a_database_without_a_dump(self, host, call):
        host.stack("db", DATABASE + "x-stackward: {backup: true}\n", pg__a="1")
        assert any("looks like postgres" in f["text"] for f in self.findings(call)[2])

    def test_a_tree_of_two_stacks(self, host, call):
        (host.root / "media").mkdir()
        text = (
            f"{{services: {{web: {{image: nginx, volumes: ['{host.root}/media:/m']}}}}, x-stackward: {{backup: true}}}}"
        )
        host.stack("a", text)
        host.stack("b", text)
        assert any("backed up 2 times: with a, b" in f["text"] for f in self.findings(call)[2])

    def test_a_file_elsewhere_that_the_stack_writes_to(self, host, call):
        for name in ("written", "read", "known"):
            (host.root / name).write_text("x")
        volumes = ", ".join(f"'{host.root}/{one}'" for one in ("written:/w", "read:/r:ro", "known:/k"))
        labels = f"{{stackward.backup: 'true', stackward.backup.skip: '{host.root}/known'}}"
        host.stack("shop", f"services: {{web: {{image: nginx, labels: {labels}, volumes: [{volumes}]}}}}")
        [found] = [f for f in self.findings(call)[2] if "a single file" in f["text"]]
        assert found["severity"] == "warn"
        assert f"{host.root}/written, which the stack can write to" in found["text"]
        assert f"stackward.backup.skip: {host.root}/written" in found["advice"]

    def test_a_staging_label_without_a_volume_for_it(self, host, call):
        host.stack("shop", LABELLED.replace('"true"}', '"true", stackward.staging: "true"}'))
        [found] = [f for f in self.findings(call)[2] if f["topic"] == "staging"]
        assert "the label stackward.staging of shop has no effect: there is no " in found["text"]

    def test_quiet_leaves_out_what_is_well(self, host, call):
        host.stack("shop", LABELLED, data__a="1")
        severities = {f["severity"] for f in call("check", "--quiet")[1]["findings"]}
        assert severities <= {"error", "warn"}
        assert "errors" in call("check", "--human")[1]


class TestInit:
    def test_it_proposes_and_writes_nothing(self, host, call):
        directory = host.stack("db", DATABASE, pg__a="123")
        host.stack("shop", LABELLED)
        code, document, _ = call("init")
        assert code == 0
        (offer,) = document["stacks"]
        assert (offer["stack"], offer["bytes"], offer["trees"]) == ("db", 3, ["pg"])
        assert "backup.dump: postgres" in offer["extension"]
        assert sorted(path.name for path in directory.iterdir()) == ["compose.yaml", "pg"]

    def test_write_puts_it_where_compose_and_discovery_read_it(self, host, call):
        directory = host.stack("db", DATABASE)
        code, document, _ = call("init", "--write")
        assert code == 0
        assert document["stacks"][0]["written"] == str(directory / "compose.override.yaml")
        assert call("stacks", "db")[1]["stacks"][0]["opted_in"]
        assert call("init")[1]["stacks"] == []

    def test_an_override_that_is_there_keeps_what_it_says(self, host, call):
        directory = host.stack("db", DATABASE)
        override = directory / "compose.override.yml"
        override.write_text("# mine\nservices: {db: {environment: {A: b}}}")
        override.chmod(0o640)
        call("init", "--write")
        assert override.read_text().startswith("# mine\nservices: {db: {environment: {A: b}}}\n\nx-stackward:")
        assert override.stat().st_mode & 0o777 == 0o640
        assert yaml.safe_load(override.read_text())["services"]["db"]["environment"] == {"A": "b"}

    @pytest.mark.parametrize(
        ("files", "why"),
        [
            ({"compose.override.yaml": "{services: {db: {tty: true}}}"}, "Compose says"),
            ({"compose.override.yaml": "x-stackward: {}\n"}, "already"),
            ({"_dot_env": "COMPOSE_FILE=compose.yaml\n"}, "COMPOSE_FILE"),
        ],
    )
    def test_what_cannot_be_written_is_told_and_left_as_it_was(self, host, call, files, why):
        directory = host.stack("db", DATABASE, **files)
        before = {path: path.read_bytes() for path in directory.iterdir()}
        code, document, _ = call("init", "--write")
        assert code == 1
        assert why in document["stacks"][0]["error"]
        assert {path: path.read_bytes() for path in directory.iterdir()} == before

    def test_a_broken_stack_is_told(self, host, call):
        host.stack("db", "services: {db: [")
        code, document, _ = call("init", "--write", "db")
        assert code == 1
        assert "cannot read it" in document["stacks"][0]["error"]

    def test_the_key_is_made_once_and_is_its_owners(self, host, call):
        first = call("init")[1]
        key = host.settings.config_dir / "age.key"
        assert key.stat().st_mode & 0o777 == 0o600
        assert first["key_made"]
        assert first["recipients"] == list(age.recipients_of(key))
        second = call("init")[1]
        assert (second["key_made"], second["recipients"]) == (False, first["recipients"])

    def test_no_key_where_there_are_recipients_or_none_is_wanted(self, host, call, monkeypatch):
        assert call("init", "--no-key")[1]["recipients"] == []
        recipient = "age1lhrktlhwr8pynlr36l63a3h2dt2qh0llvawd979cj9z7jh2q3fxsyymp6r"
        monkeypatch.setenv("STACKWARD_AGE_RECIPIENTS", recipient)
        assert call("init")[1]["recipients"] == [recipient]
        assert not (host.settings.config_dir / "age.key").exists()

    def test_the_recovery_sheet_names_the_key_but_never_holds_it(self, host, call):
        code, text, _ = call("init", "--human")
        assert code == 0
        secret = (host.settings.config_dir / "age.key").read_text().splitlines()[-1]
        assert secret.startswith("AGE-SECRET-KEY-")
        assert secret not in text
        assert f"Copy {host.settings.config_dir}/age.key" in text
        assert str(host.settings.backup_root) in text


class TestAccept:
    def test_a_held_stack_is_released_and_the_time_is_known(self, host, call):
        host.stack("shop", LABELLED)
        with host.opened() as store:
            store.hold("shop", "data", "it held 9 files and is empty now", NOW)
        code, document, _ = call("accept", "shop")
        assert code == 0
        assert "9 files" in document["accepted"][0]
        with host.opened() as store:
            assert store.holds() == {}
            assert store.accepted_at("shop") is not None

    def test_labels_that_vanished_are_let_go(self, host, call):
        host.stack("shop", "services: {web: {image: nginx}}")
        with host.opened() as store:
            store.remember_opted_in("shop", NOW)
        assert call("stacks")[1]["stacks"][0]["opted_in"]
        assert "no longer backed up" in call("accept", "shop")[1]["accepted"][0]
        assert not call("stacks")[1]["stacks"][0]["opted_in"]

    def test_a_stack_that_compose_cannot_read_is_not_let_go(self, host, call):
        host.stack("shop", "services: {web: [")
        with host.opened() as store:
            store.remember_opted_in("shop", NOW)
        call("accept", "shop")
        assert call("stacks")[1]["stacks"][0]["opted_in"]

    def test_a_directory_that_is_gone(self, host, call):
        with host.opened() as store:
            store.remember_opted_in("shop", NOW)
        assert call("accept", "shop")[0] == 0
        assert call("accept", "shop")[0] == 2


def test_the_sheet_says_it_when_nobody_can_open_secrets(host):
    assert "secrets are in no backup" in recovery_sheet.sheet(host.settings, (), None, "here")


def test_the_sheet_says_what_to_do_about_secrets_from_elsewhere(host):
    sheet = recovery_sheet.sheet(host.settings, (), None, "here")
    step = sheet[sheet.index("restore config --secrets") : sheet.index("  5. For each stack")]
    assert f"outside {host.settings.docker_root}" in step
    assert "make those directories" in step
    assert "repeat this step" in step
    assert f"{host.settings.docker_root}/.outside" in sheet
