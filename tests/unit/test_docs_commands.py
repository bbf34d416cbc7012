"""docs/commands.md names every verb, option, chain and exit code that exists, and none else."""

from __future__ import annotations

import argparse
import importlib
import re
from pathlib import Path

import pytest

from stackward.cli.main import VERBS
from stackward.core.errors import ExitCode
from stackward.core.week import WEEK
from stackward.week import chains

_PAGE = (Path(__file__).parents[2] / "docs/commands.md").read_text()
_FOR_ALL = {"--human", "--json", "--help"}


def options(verb: str) -> set[str]:
    """The long options of a verb, without those that every verb has."""
    parser = argparse.ArgumentParser()
    importlib.import_module(f"stackward.cli.{verb.replace('-', '_')}").add_arguments(parser)
    return set(re.findall(r"(--[a-z-]+)", parser.format_help())) - _FOR_ALL


def test_every_verb_is_there_and_no_other():
    assert set(re.findall(r"`stackward ([a-z-]+)", _PAGE)) == set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_is_there(verb):
    missing = {option for option in options(verb) if not re.search(rf"{option}(?![a-z-])", _PAGE)}
    assert missing == set()


def test_no_other_option_is_there():
    known = set().union(*(options(verb) for verb in VERBS)) | _FOR_ALL
    assert set(re.findall(r"(--[a-z][a-z-]*)", _PAGE)) <= known


def test_the_week_is_there_as_it_is():
    rows = re.findall(r"^\| `([\w-]+)` \| `(.*)`(.*) \| (.*) \|$", _PAGE.partition("## By the clock")[2], re.MULTILINE)
    assert rows == [(row.name, row.schedule, ", if switched on" if row.off else "", row.summary) for row in WEEK]


def test_what_can_be_run_by_name_is_there():
    page = _PAGE.partition("## By the clock")[2]
    assert {
        name for name in [*chains.names(), chains.RETRY] if f"`{name}`" not in page and f" {name}`" not in page
    } == set()


def test_the_exit_codes_are_there_as_they_are():
    codes = re.findall(r"^\| (\d+) \|", _PAGE.partition("## Exit codes")[2], re.MULTILINE)
    assert list(map(int, codes)) == list(ExitCode)
