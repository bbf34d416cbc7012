from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackward.core import values
from stackward.core.model import Keep

AGE = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
SSH = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN admin@host"


def test_booleans():
    assert [values.parse_boolean(text) for text in ("true", "YES", " on ", "1")] == [True] * 4
    assert [values.parse_boolean(text) for text in ("false", "No", "off", "0")] == [False] * 4
    for text in ("", "flase", "2"):
        with pytest.raises(ValueError, match="must be true or false"):
            values.parse_boolean(text)


def test_lists_are_separated_by_commas_or_else_by_lines():
    assert values.parse_list(" a, b ,,c") == ("a", "b", "c")
    assert values.parse_list("a,b\n\n c d \n") == ("a,b", "c d")


@pytest.mark.parametrize(
    ("text", "keep"),
    [
        ("7d", Keep(days=7)),
        (" 30 d ", Keep(days=30)),
        ("daily=7,weekly=4,monthly=6,yearly=1", Keep(daily=7, weekly=4, monthly=6, yearly=1)),
        ("daily=3\nhourly=24\n", Keep(daily=3, hourly=24)),
        ("daily=0, weekly=1", Keep(weekly=1)),
    ],
)
def test_rules_for_keeping(text, keep):
    assert values.parse_keep(text) == keep


@pytest.mark.parametrize(
    "text", ["", "0d", "7", "-1d", "daily=0", "daily", "dayly=3", "daily=1,daily=2", "daily=-1", "7d,daily=1"]
)
def test_a_rule_that_is_none_or_that_would_keep_nothing_is_refused(text):
    with pytest.raises(ValueError, match="must be a number of days such as 7d"):
        values.parse_keep(text)


@given(
    st.integers(1, 99999).map(lambda days: Keep(days=days))
    | st.builds(Keep, daily=st.integers(1, 9), yearly=st.integers(0, 9))
)
def test_a_rule_that_is_shown_is_read_back(keep):
    assert values.parse_keep(values.format_keep(keep)) == keep


def test_no_rule_shows_as_nothing():
    assert values.format_keep(Keep()) == ""


def test_paths_are_absolute_and_normal():
    assert values.parse_path("//srv/./docker/") == Path("/srv/docker")
    assert values.parse_path("/") == Path("/")
    for text in ("", "srv", "./x", "/srv/../etc", "/a\0b"):
        with pytest.raises(ValueError, match="must be an absolute path"):
            values.parse_path(text)


def test_retention_days():
    assert values.parse_retention_days(" 7 ") == Keep(days=7)
    for text in ("0", "-1", "7d", "1.5", "", "100000"):
        with pytest.raises(ValueError, match="must be a number of days"):
            values.parse_retention_days(text)


def test_shares():
    assert [values.parse_share(text) for text in ("90%", "0.9", "1", "100 %")] == [0.9, 0.9, 1.0, 1.0]
    for text in ("", "0", "90", "101%", "-1", "half"):
        with pytest.raises(ValueError, match="must be a share such as 90%"):
            values.parse_share(text)


def test_age_recipients_in_every_form_that_people_keep_them():
    assert values.parse_recipients(f"{AGE}, {SSH}") == (AGE, SSH)
    assert values.parse_recipients(f"{AGE} {AGE}") == (AGE, AGE)
    assert values.parse_recipients(f"# mine, kept in the safe\n{AGE}\n\n{SSH}\n") == (AGE, SSH)


@pytest.mark.parametrize("text", ["AGE1QL3Z7", "age1", "ssh-dss AAAA", "nobody", f"{AGE},x"])
def test_what_is_no_recipient_is_refused(text):
    with pytest.raises(ValueError, match="must be age recipients"):
        values.parse_recipients(text)


def test_a_secret_key_for_a_recipient_is_recognized():
    with pytest.raises(ValueError, match="not the secret key"):
        values.parse_recipients("age-secret-key-1QQQ")


def test_a_comma_in_a_url_belongs_to_it_unless_another_url_follows():
    assert values.parse_urls("mailto://a:b@c?to=x,y, ntfy://topic\nhttps://d") == (
        "mailto://a:b@c?to=x,y",
        "ntfy://topic",
        "https://d",
    )
    for text in ("", "ntfy", "://x", "ntfy://"):
        with pytest.raises(ValueError, match="must be URLs"):
            values.parse_urls(text)


def test_http_urls():
    assert values.parse_http_url(" https://hc-ping.com/x ") == "https://hc-ping.com/x"
    for text in ("", "hc-ping.com", "ftp://x", "https://a b"):
        with pytest.raises(ValueError, match="must be an http"):
            values.parse_http_url(text)


def test_docker_hosts():
    assert values.parse_docker_host("unix:///run/docker.sock") == "unix:///run/docker.sock"
    assert values.parse_docker_host("tcp://127.0.0.1:2375") == "tcp://127.0.0.1:2375"
    for text in ("", "/var/run/docker.sock", "unix://run", "ssh://x"):
        with pytest.raises(ValueError, match="must be unix"):
            values.parse_docker_host(text)


def test_no_host_reads_as_an_option():
    assert [values.parse_host(text) for text in ("nas.local", "192.0.2.1", "[2001:db8::1]", "docker-backup")]
    for text in ("", "-oProxyCommand=x", "a b", "a;b", "a/b"):
        with pytest.raises(ValueError, match="must be a name or an address"):
            values.parse_host(text)


def test_suggestions_are_close_ones_only():
    assert values.suggest("BACKUP_ROT", ["BACKUP_ROOT", "TZ"]) == "did you mean BACKUP_ROOT?"
    assert values.suggest("backup_root", ["BACKUP_ROOT"]) == "did you mean BACKUP_ROOT?"
    assert values.suggest("zebra", ["BACKUP_ROOT"]) == ""


def test_what_all_names_begin_with_makes_none_of_them_close():
    names = ["STACKWARD_VOLUME", "STACKWARD_STATE_DIR", "DOCKER_ROOT"]
    assert values.suggest("STACKWARD_COLOUR", names, "STACKWARD_") == ""
    assert values.suggest("STACKWARD_TEST", names, "STACKWARD_") == ""
    assert values.suggest("STACKWARD_SCHEDULE_BACKUP", ["STACKWARD_SCHEDULE_AUDIT"], "STACKWARD_") == ""
    assert values.suggest("STACKWARD_VOLUMES", names, "STACKWARD_") == "did you mean STACKWARD_VOLUME?"
    assert values.suggest("STACKWARD_DOCKER_ROOT", names, "STACKWARD_") == "did you mean DOCKER_ROOT?"


def test_addresses_to_listen_on():
    assert values.parse_listen(" 127.0.0.1:9466 ") == ("127.0.0.1", 9466)
    assert values.parse_listen("[::1]:80") == ("::1", 80)
    assert values.parse_listen("0.0.0.0:65535") == ("0.0.0.0", 65535)
    assert values.parse_listen("OFF") is None
    for text in ("", "9466", ":9466", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "::1:80", "a b:80"):
        with pytest.raises(ValueError, match="must be ADDRESS:PORT"):
            values.parse_listen(text)


def test_log_servers():
    assert values.parse_gelf_url("udp://graylog:12201/") == "udp://graylog:12201"
    assert values.parse_gelf_url("tcp://[2001:db8::1]:12201") == "tcp://[2001:db8::1]:12201"
    for text in ("", "graylog:12201", "udp://graylog", "http://graylog:12201", "udp://graylog:12201/path"):
        with pytest.raises(ValueError, match="must be udp"):
            values.parse_gelf_url(text)
