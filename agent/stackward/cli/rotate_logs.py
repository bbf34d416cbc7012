"""stackward rotate-logs: put logs and reports aside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackward.cli import chore

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stackward.cli.context import Context


def add_arguments(parser: ArgumentParser) -> None:
    parser.description = (
        "Rotate what is due: kept for seven days, compressed. Where the host was given that task, nothing is done."
    )
    chore.add_arguments(parser)


def run(arguments: Namespace, context: Context) -> int:
    return chore.carry_out("rotate-logs", arguments, context)
