"""docs/host-units.md names every file that is put on a host, every option of the installer and every verb of the bridge."""

from __future__ import annotations

import re
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_UNITS = _ROOT / "host-units"
_PAGE = (_ROOT / "docs/host-units.md").read_text()


def first_column(heading: str) -> set[str]:
    """The code words in the first cells of the table that begins with `heading`."""
    table = re.search(rf"^\| {heading} \|.*\n((?:\|.*\n)+)", _PAGE, re.MULTILINE)
    assert table, heading
    cells = [row.split("|")[1] for row in table[1].splitlines()]
    return {word for cell in cells for word in re.findall(r"`([^`]+)`", cell)}


def test_every_file_is_there_and_no_other():
    assert first_column("file") == {file.name for file in _UNITS.iterdir()} - {"install"}


def test_every_option_is_there_and_no_other():
    options = set(re.findall(r"^ +(--[a-z-]+)\)", (_UNITS / "install").read_text(), re.MULTILINE))
    assert len(options) > 3
    assert first_column("option") == options


def test_every_verb_is_there_and_no_other():
    requests = (_UNITS / "bridge").read_text().rpartition("case $request in")[2]
    patterns = re.findall(r"^    ([^*\n][^)\n]*)\)", requests, re.MULTILINE)
    known = {word.strip("'* ") for pattern in patterns for word in pattern.split("|")}
    assert "ping" in known
    assert {word.removesuffix(" UNIT") for word in first_column("verb")} == known


def test_units_never_take_a_stack_down():
    unless_the_host_goes_down = "sh -c 'systemctl is-system-running | grep -qx stopping || exec docker compose stop'"
    for template, stop in (
        ("docker-compose@.service", "docker compose stop"),
        ("docker-compose-staging@.service", unless_the_host_goes_down),
    ):
        commands = re.findall(r"^Exec(\w+)=(.*)$", (_UNITS / template).read_text(), re.MULTILINE)
        assert dict(commands) == {
            "Start": "docker compose up -d",
            "Reload": "docker compose up -d",
            "Stop": stop,
        }
