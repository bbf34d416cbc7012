"""stackward health: how the containers of each stack are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackward.cli import chore

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stackward.cli.context import Context


def add_arguments(parser: ArgumentParser) -> None:
    parser.description = (
        "Look at the containers of every stack: running, healthy, restarting in a loop, ended. One that somebody stopped is no"
        " failure. Exit code 1: something is wrong."
    )
    chore.add_arguments(parser)


def run(arguments: Namespace, context: Context) -> int:
    return chore.carry_out("health", arguments, context)
