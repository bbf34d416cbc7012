"""stackward docker-prune: remove what Docker has no use for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackward.cli import chore

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stackward.cli.context import Context


def add_arguments(parser: ArgumentParser) -> None:
    parser.description = (
        "Remove untagged images, unused networks, build cache and stopped containers that belong to no stack. What a stack or a"
        " way back needs stays; volumes are never touched."
    )
    chore.add_arguments(parser)


def run(arguments: Namespace, context: Context) -> int:
    return chore.carry_out("docker-prune", arguments, context)
