"""stackward audit: what runs here, and what of it needs a look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackward.cli import chore

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stackward.cli.context import Context


def add_arguments(parser: ArgumentParser) -> None:
    parser.description = (
        "Write docker-audit.json: published ports and who listens, images with their age, what is wrong or risky in compose"
        " files, labels, and what backs up each tree."
    )
    chore.add_arguments(parser)


def run(arguments: Namespace, context: Context) -> int:
    return chore.carry_out("audit", arguments, context)
