from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest

from stackward.core.errors import BusyError, DamageError, ExitCode, RefusedError, SettingsError, StackwardError
from stackward.core.model import Container, Outcome, Stack, Tree, TreeKind, display, typed, undisplayed
from stackward.core.progress import Silent


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ([], Outcome.OK),
        ([Outcome.SKIPPED, Outcome.SKIPPED], Outcome.SKIPPED),
        ([Outcome.SKIPPED, Outcome.OK], Outcome.OK),
        ([Outcome.OK, Outcome.WARN], Outcome.WARN),
        ([Outcome.WARN, Outcome.FAILED, Outcome.OK], Outcome.FAILED),
    ],
)
def test_a_whole_is_as_bad_as_its_worst_part(parts, whole):
    assert Outcome.worst(parts) is whole


def tree(kind: TreeKind, *, covered: bool = True) -> Tree:
    return Tree("shop", "uploads", kind, Path("/a"), Path("/b"), writable=True, covered=covered)


def test_a_stacks_data_directory_lies_under_its_name_and_other_trees_under_mounts():
    assert tree(TreeKind.DATA).artifact_path == PurePosixPath("shop")
    assert tree(TreeKind.BIND).artifact_path == PurePosixPath(".mounts/shop/uploads")
    assert tree(TreeKind.VOLUME).artifact_path == PurePosixPath(".mounts/shop/uploads")


def test_a_stack_knows_which_trees_are_covered_and_which_containers_run():
    covered, left_out = tree(TreeKind.DATA), tree(TreeKind.BIND, covered=False)
    states = ["running", "paused", "restarting", "exited", "created", "dead"]
    containers = [Container(state, state, "shop", "web", state) for state in states]
    once = Container("once", "once", "shop", "web", "running", one_off=True)
    stack = Stack("shop", Path("/s"), "shop", trees=(covered, left_out), containers=(*containers, once))
    assert stack.covered_trees == (covered,)
    assert [container.id for container in stack.running] == ["running", "paused", "restarting"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain é 名", "plain é 名"),
        (os.fsdecode(b"caf\xe9"), "caf\\xe9"),
        (b"caf\xe9", "caf\\xe9"),
        ("a\nb\x1b[31m", "a\\nb\\x1b[31m"),
        (Path("/a b"), "/a b"),
    ],
)
def test_any_name_can_be_printed(name, shown):
    assert display(name) == shown


@pytest.mark.parametrize("name", [b"caf\xe9", b"\xff\xfe", "plain é 名".encode(), b"a\\b", b"\\x41", b"--overwrite"])
def test_a_name_can_be_typed_as_it_is_printed(name):
    assert typed(display(name)) == os.fsdecode(name)


@pytest.mark.parametrize("name", [b"a\nb\t\x1b[31m", b"caf\xe9\r", "\u200b\U000e0001".encode(), b"plain", b"\\x7"])
def test_a_name_is_read_as_it_was_printed(name):
    assert undisplayed(display(name)) == os.fsdecode(name)


def test_errors_say_what_to_do_and_end_the_process_with_their_code():
    assert str(StackwardError("the disk is full")) == "the disk is full"
    assert str(StackwardError("the disk is full", hint="make room")) == "the disk is full\nHINT: make room"
    codes = [kind.exit_code for kind in (StackwardError, SettingsError, DamageError, RefusedError, BusyError)]
    assert codes == [ExitCode.FAILED, ExitCode.USAGE, ExitCode.DAMAGED, ExitCode.REFUSED, ExitCode.BUSY]
    assert [int(code) for code in codes] == [1, 2, 3, 4, 75]


def test_progress_that_nobody_watches_says_nothing(capfd):
    silent = Silent()
    silent.step("copying", total_bytes=1, total_files=1)
    silent.advance(byte_count=1, files=1)
    silent.warn("a file vanished")
    assert capfd.readouterr() == ("", "")
