"""What docs say is what the tables in the code say, and their examples are read without a complaint."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from stackward.config import load
from stackward.core.labels import KNOWN, read_policy
from stackward.core.model import Keep
from stackward.variables import COMPOSE_VARIABLES, VARIABLES

_ROOT = Path(__file__).parents[2]
_LABELS = (_ROOT / "docs/labels.md").read_text()
_SETTINGS = (_ROOT / "docs/settings.md").read_text()
_PLANNED = "this version of Stackward does nothing with them yet:"


def label_row(label) -> str:
    return f"| `{label.key}` | {label.scope} | {label.value} | {label.default} | {label.description} |"


def setting_row(variable) -> str:
    literal = re.match(r"none$|unset: ", variable.default) is None
    default = f"`{variable.default}`" if literal else variable.default.replace("unset: ", "unset: `") + "`"
    default = "none" if variable.default == "none" else default
    return f"| `{variable.name}` | {default} | {sentence(variable.description)} |"


def sentence(text: str) -> str:
    return text if text.startswith("`") else text[0].upper() + text[1:]


def compose_row(name: str) -> str:
    return f"| `{name}` | {sentence(COMPOSE_VARIABLES[name])} |"


def tables(page: str) -> list[list[str]]:
    """The rows of each table that begin with a code word: its heading is not one of them."""
    blocks = re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)
    return [[row for row in block.splitlines() if row.startswith("| `")] for block in blocks]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def test_labels_are_documented_as_they_are():
    now, planned = tables(_LABELS)
    assert now == [label_row(label) for label in KNOWN if not label.planned]
    assert planned == [label_row(label) for label in KNOWN if label.planned]
    assert _PLANNED in _LABELS


def test_settings_are_documented_as_they_are():
    now, planned, compose = tables(_SETTINGS)
    assert now == [setting_row(variable) for variable in VARIABLES if not variable.planned]
    assert planned == [setting_row(variable) for variable in VARIABLES if variable.planned]
    assert compose == [compose_row(name) for name in COMPOSE_VARIABLES]
    assert _PLANNED in _SETTINGS


def test_a_setting_that_is_not_called_planned_is_used():
    sources = [path for path in (_ROOT / "agent/stackward").rglob("*.py") if path.name != "config.py"]
    used = set(re.findall(r"settings\.(\w+)", "\n".join(path.read_text() for path in sources)))
    assert {variable.field for variable in VARIABLES if not variable.planned} <= used


def test_a_word_that_looks_like_a_label_is_one():
    mentioned = set(re.findall(r"`(stackward\.[a-z][\w.-]*)(?::[^`]*)?`", _LABELS + _SETTINGS)) - {"stackward.toml"}
    assert mentioned <= {label.key for label in KNOWN}


@pytest.mark.parametrize("number", range(len(blocks(_LABELS, "yaml"))))
def test_examples_of_policies_are_read_without_a_problem(number):
    model = yaml.safe_load(blocks(_LABELS, "yaml")[number])
    services = {name: service.get("labels", {}) for name, service in model.get("services", {}).items()}
    services = services or {"web": {}, "db": {}}
    reading = read_policy("example", services, model.get("x-stackward"))
    assert reading.problems == ()
    assert reading.policy.backup is True
    assert reading.policy.keep == Keep(daily=7, weekly=4, monthly=6)


def test_the_example_of_a_settings_file_is_read(tmp_path):
    (example,) = blocks(_SETTINGS, "toml")
    (tmp_path / "stackward.toml").write_text(example)
    assert load({}, tmp_path / "stackward.toml").keep == Keep(days=14)


def example_environment() -> dict[str, str]:
    """What `.env.example` proposes: each line that a person would take the `#` from."""
    lines = (_ROOT / ".env.example").read_text().splitlines()
    return dict(re.findall(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", "\n".join(lines), re.MULTILINE))


def test_the_example_environment_names_settings_only_and_their_values_are_read():
    example = example_environment()
    assert {"DOCKER_ROOT", "BACKUP_ROOT", "TZ"} <= set(example)
    assert set(example) <= {variable.name for variable in VARIABLES} | set(COMPOSE_VARIABLES)
    load({name: value for name, value in example.items() if not value.endswith("…")}, None)


def test_compose_reads_settings_only_and_has_their_defaults():
    compose = (_ROOT / "compose.yaml").read_text()
    read = re.findall(r"\$\{([A-Z_]+)(?::-([^}]*))?\}", compose)
    defaults = {variable.name: variable.default for variable in VARIABLES}
    assert {name for name, _ in read} <= set(defaults) | set(COMPOSE_VARIABLES)
    assert {name for name, _ in read} >= set(COMPOSE_VARIABLES)
    # The mount of the Btrfs volume falls back to its parent, which every host has; what listens in the container is
    # published by the host.
    different = {("STACKWARD_VOLUME", "/srv"), ("STACKWARD_LISTEN", "0.0.0.0:9466")}
    for name, default in read:
        if name in defaults and (name, default) not in different:
            assert default == defaults[name]
