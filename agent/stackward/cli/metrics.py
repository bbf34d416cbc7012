"""stackward metrics: what /metrics says, for whoever has no HTTP at hand."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from stackward.observe import metrics

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stackward.cli.context import Context


def add_arguments(_parser: ArgumentParser) -> None:
    """Nothing can be chosen."""


def run(_arguments: Namespace, context: Context) -> int:
    sys.stdout.write(metrics.exposition(context.appliance.facts()).decode())
    return 0
