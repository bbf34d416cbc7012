"""stackward host-report: the machine, its disks, and what failed on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackward.cli import chore

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stackward.cli.context import Context


def add_arguments(parser: ArgumentParser) -> None:
    parser.description = (
        "Write docker-host.json: hardware, kernel, disks and their health, space, Btrfs, Docker, failed units. Exit code 1: a"
        " disk fails, or data was lost."
    )
    chore.add_arguments(parser)


def run(arguments: Namespace, context: Context) -> int:
    return chore.carry_out("host-report", arguments, context)
