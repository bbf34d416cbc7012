from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

import stackward
from stackward.config import Settings, load
from stackward.core.errors import ExitCode, SettingsError
from stackward.core.model import Keep
from stackward.variables import COMPOSE_VARIABLES, VARIABLES

_AGENT = Path(stackward.__file__).parents[1]
AGE = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"


def mistakes(environment, file=None) -> str:
    with pytest.raises(SettingsError) as caught:
        load(environment, file)
    assert caught.value.exit_code == ExitCode.USAGE
    assert "docs/settings.md" in caught.value.hint
    return caught.value.message


@pytest.fixture
def toml(tmp_path):
    def write(text: str) -> Path:
        file = tmp_path / "stackward.toml"
        file.write_text(text)
        return file

    return write


def test_with_nothing_said_the_defaults_hold():
    assert load({}, None) == Settings()
    assert load({"PATH": "/bin", "HOME": "/root", "LC_ALL": "C"}, Path("/nonexistent/stackward.toml")) == Settings()


def test_every_variable_sets_its_own_field_and_every_field_has_one():
    fields = {field.name for field in dataclasses.fields(Settings)}
    assert {variable.field for variable in VARIABLES} == fields
    assert len({variable.name for variable in VARIABLES}) == len(VARIABLES)
    assert len({(variable.field, variable.key) for variable in VARIABLES}) == len(VARIABLES)


def test_the_default_that_docs_show_is_the_default_that_holds():
    defaults = Settings()
    for variable in VARIABLES:
        actual = getattr(defaults, variable.field)
        if variable.key:
            assert actual == {}  # nothing is set: the table in core.week holds
            assert variable.parse(variable.default)
        elif variable.default == "none":
            assert actual in ("", ()), variable.name
        elif variable.default.startswith("unset: "):
            assert actual == Keep(daily=7, weekly=4)
            assert variable.default == "unset: daily=7,weekly=4"
        else:
            assert variable.parse(variable.default) == actual, variable.name


def test_the_environment_is_read():
    settings = load(
        {
            "DOCKER_ROOT": "/srv/stacks/",
            "BACKUP_ROOT": "/mnt/backup",
            "BACKUP_RETENTION_DAYS": "14",
            "TZ": "Europe/Berlin",
            "STACKWARD_AGE_RECIPIENTS": AGE,
            "STACKWARD_MINIMUM_FREE": "5G",
            "STACKWARD_SCHEDULE": "off",
            "STACKWARD_NOTIFY_URLS": "ntfy://a, ntfy://b",
        },
        None,
    )
    assert settings.docker_root == Path("/srv/stacks")
    assert settings.backup_root == Path("/mnt/backup")
    assert settings.keep == Keep(days=14)
    assert settings.zone == ZoneInfo("Europe/Berlin")
    assert settings.age_recipients == (AGE,)
    assert settings.minimum_free_bytes == 5 << 30
    assert settings.schedule is False
    assert settings.notify_urls == ("ntfy://a", "ntfy://b")


def test_an_empty_variable_counts_as_not_set(toml):
    file = toml('BACKUP_ROOT = "/from/file"')
    assert load({"BACKUP_ROOT": "", "TZ": " ", "STACKWARD_SCHEDULE": ""}, file).backup_root == Path("/from/file")


def test_the_file_is_read_with_its_own_types_and_the_environment_wins(toml):
    file = toml(
        f"""
        BACKUP_ROOT = "/from/file"
        BACKUP_RETENTION_DAYS = 3
        STACKWARD_SHRINK_LIMIT = 0.5
        STACKWARD_SCHEDULE = false
        STACKWARD_BACKUP_DEFAULT = true
        STACKWARD_AGE_RECIPIENTS = ["{AGE}", "{AGE}"]
        """
    )
    settings = load({"BACKUP_ROOT": "/from/environment"}, file)
    assert settings.backup_root == Path("/from/environment")
    assert settings.keep == Keep(days=3)
    assert settings.shrink_limit == 0.5
    assert settings.schedule is False
    assert settings.backup_default is True
    assert settings.age_recipients == (AGE, AGE)


def test_a_name_that_ends_in_file_names_a_file_with_the_value(tmp_path, toml):
    secret = tmp_path / "url"
    secret.write_text("https://ping.example/secret\n")
    assert load({"STACKWARD_PING_URL_FILE": str(secret)}, None).ping_url == "https://ping.example/secret"
    file = toml(f'STACKWARD_PING_URL_FILE = "{secret}"')
    assert load({}, file).ping_url == "https://ping.example/secret"
    assert load({"STACKWARD_PING_URL": "https://other"}, file).ping_url == "https://other"


def test_a_named_file_that_cannot_be_read_is_a_mistake(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "binary"):
        assert "TRUENAS_HOST_FILE must name a readable text file" in mistakes({"TRUENAS_HOST_FILE": str(path)})


def test_a_value_and_a_file_for_it_at_once_is_a_mistake():
    assert "TRUENAS_HOST and TRUENAS_HOST_FILE are both set" in mistakes(
        {"TRUENAS_HOST": "a", "TRUENAS_HOST_FILE": "/b"}
    )


def test_every_mistake_is_told_at_once_with_name_and_remedy(toml):
    message = mistakes(
        {
            "TZ": "Mars/Olympus",
            "DOCKER_ROOT": "opt/docker",
            "BACKUP_RETENTION_DAYS": "week",
            "STACKWARD_SHRINK_LIMIT": "120%",
            "STACKWARD_AGE_RECIPENTS": AGE,
        },
        toml('STACKWARD_SCHEDULE = "maybe"'),
    )
    assert "TZ must be the name of a time zone such as Europe/Berlin or UTC, not 'Mars/Olympus'" in message
    assert "DOCKER_ROOT must be an absolute path without '..', not 'opt/docker'" in message
    assert "BACKUP_RETENTION_DAYS must be a number of days, 1 or more, not 'week'" in message
    assert "STACKWARD_SHRINK_LIMIT must be a share" in message
    assert "STACKWARD_SCHEDULE must be true or false, not 'maybe'" in message
    assert "STACKWARD_AGE_RECIPENTS is not a setting: did you mean STACKWARD_AGE_RECIPIENTS?" in message
    assert len(message.splitlines()) == 7


@pytest.mark.parametrize("zone", ["../../etc/passwd", "Europe", "CET-1CEST,M3", ""])
def test_no_value_of_tz_breaks_more_than_itself(zone):
    if zone:
        assert "TZ must be the name of a time zone" in mistakes({"TZ": zone})
    else:
        assert load({"TZ": zone}, None).zone == ZoneInfo("UTC")
    assert load({"TZ": ":Europe/Berlin"}, None).zone == ZoneInfo("Europe/Berlin")


def test_an_unknown_name_of_ours_is_a_mistake_and_one_of_others_is_not():
    assert "STACKWARD_ZEBRA is not a setting" in mistakes({"STACKWARD_ZEBRA": "1"})
    assert "STACKWARD_ZEBRA_FILE is not a setting" in mistakes({"STACKWARD_ZEBRA_FILE": "/x"})
    assert load({"DOCKER_HOST": "tcp://x", "BACKUP_DIR": "y"}, None) == Settings()


def test_names_that_only_compose_reads_are_allowed():
    assert load(dict.fromkeys(COMPOSE_VARIABLES, "x"), None) == Settings()


def test_every_unknown_name_in_the_file_is_a_mistake(toml):
    message = mistakes({}, toml('docker_root = "/x"\nEDITOR = "vi"\nTZ = ["a", 1]\nSTACKWARD_CONFIG_DIR = "/x"\n'))
    assert "docker_root in " in message
    assert "is not a setting: did you mean DOCKER_ROOT?" in message
    assert "EDITOR in " in message
    assert "must be a string, a number, a boolean or a list of strings" in message
    assert "STACKWARD_CONFIG_DIR in " in message


@pytest.mark.parametrize("content", [b"BACKUP_ROOT = ", b"\xff\xfe", b"TZ = 'a'\nTZ = 'b'"])
def test_a_file_that_is_no_toml_is_a_mistake(tmp_path, content):
    file = tmp_path / "stackward.toml"
    file.write_bytes(content)
    assert f"{file} cannot be read: " in mistakes({"TZ": "Mars"}, file)
    assert "TZ must be" in mistakes({"TZ": "Mars"}, file)


@pytest.mark.parametrize(
    ("docker", "backup", "first"),
    [
        ("/opt/docker", "/opt/docker", "BACKUP_ROOT"),
        ("/opt/docker", "/opt/docker/backups", "BACKUP_ROOT"),
        ("/", "/backup", "BACKUP_ROOT"),
        ("/backup/docker", "/backup", "DOCKER_ROOT"),
    ],
)
def test_neither_root_lies_in_the_other(docker, backup, first):
    assert f"{first} must lie outside" in mistakes({"DOCKER_ROOT": docker, "BACKUP_ROOT": backup})


def test_roots_side_by_side_with_one_name_beginning_as_the_other_are_fine():
    assert load({"DOCKER_ROOT": "/opt/docker", "BACKUP_ROOT": "/opt/docker-backup"}, None)


def test_secrets_never_show_up_in_a_message(tmp_path):
    secret = "AGE-SECRET-KEY-1VERYSECRET"
    for name in ("STACKWARD_AGE_RECIPIENTS", "STACKWARD_NOTIFY_URLS", "STACKWARD_PING_URL"):
        message = mistakes({name: secret})
        assert name in message
        assert secret not in message


def test_a_value_is_shown_printable():
    assert "'x\\x1b[31m'" in mistakes({"DOCKER_ROOT": "x\x1b[31m"})


def test_the_process_reads_the_file_in_its_configuration_directory(tmp_path):
    (tmp_path / "stackward.toml").write_text('BACKUP_ROOT = "/from/file"\n')
    program = "from stackward.config import from_process as f; s = f(); print(s.backup_root, s.config_dir)"
    environment = {"PATH": os.environ["PATH"], "STACKWARD_CONFIG_DIR": str(tmp_path), "PYTHONPATH": str(_AGENT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["/from/file", str(tmp_path)]
