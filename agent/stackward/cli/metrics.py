"""stackward metrics: what /metrics says, for whoever has no HTTP at hand."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from stackward.core.errors import SettingsError
from stackward.observe import metrics

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stackward.cli.context import Context


def add_arguments(_parser: ArgumentParser) -> None:
    """Nothing can be chosen."""


def run(arguments: Namespace, context: Context) -> int:
    if arguments.human is False:
        raise SettingsError(
            "metrics have one form, Prometheus' text: there is no --json of them",
            hint="`stackward status --json` has what programs want to know",
        )
    sys.stdout.write(metrics.exposition(context.appliance.facts()).decode())
    return 0
