"""Names of units; tests/e2e/test_host_units.py compares them with systemd-escape itself."""

import os

import pytest

from stackward.core.unit_names import escape, stack_unit, staging_unit


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("shop", "shop"),
        ("my-app", r"my\x2dapp"),
        ("My.App_2", "My.App_2"),
        (".hidden", r"\x2ehidden"),
        ("a b", r"a\x20b"),
        ("é", r"\xc3\xa9"),
        (os.fsdecode(b"caf\xe9"), r"caf\xe9"),
        ("$(x);%i\\", r"\x24\x28x\x29\x3b\x25i\x5c"),
        ("../x", r"\x2e.-x"),
    ],
)
def test_a_name_is_escaped_as_systemd_does(name, escaped):
    assert escape(name) == escaped


def test_units_are_instances_of_their_templates():
    assert stack_unit("my-app") == r"docker-compose@my\x2dapp.service"
    assert staging_unit("my-app") == r"docker-compose-staging@my\x2dapp.service"
