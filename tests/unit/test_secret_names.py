from __future__ import annotations

import pytest

from stackward.core.secret_names import has_private_key, is_secret_directory, is_secret_name, may_be_key


@pytest.mark.parametrize(
    "name",
    [
        b".env",
        b".env.production",
        b"db.env",
        b"docker-compose.env",
        b"ACME.json",
        b".pgpass",
        b"store.p12",
        b"caf\xe9.env",
    ],
)
def test_names_that_hold_secrets(name):
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", [b".env.example", b"example.env", b".env-sample", b"compose.yaml", b"environment", b"env"]
)
def test_names_that_do_not(name):
    assert not is_secret_name(name)


def test_a_key_is_told_by_its_name_and_then_by_its_first_bytes():
    assert may_be_key(b"server.KEY")
    assert may_be_key(b"id_ed25519")
    assert not may_be_key(b"server.crt")
    assert has_private_key(b"cert\n-----BEGIN EC PRIVATE KEY-----\n")
    assert has_private_key(b"# created\nAGE-SECRET-KEY-1QQ")
    assert not has_private_key(b"-----BEGIN CERTIFICATE-----\n")


def test_directories_called_secrets_are_secret():
    assert is_secret_directory(b"Secrets")
    assert not is_secret_directory(b"secretariat")
