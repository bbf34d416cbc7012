"""stackward observability: are those up that watch the host?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackward.cli import chore

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stackward.cli.context import Context


def add_arguments(parser: ArgumentParser) -> None:
    parser.description = (
        "Ask Graylog, Prometheus, Grafana and Fluent Bit, or what STACKWARD_CHECKS names, whether they are up. Exit code 1:"
        " one is not."
    )
    chore.add_arguments(parser)


def run(arguments: Namespace, context: Context) -> int:
    return chore.carry_out("observability", arguments, context)
