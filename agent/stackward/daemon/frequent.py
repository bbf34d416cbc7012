"""Runs, within the daemon, the jobs that come every few minutes: each with a Docker client and a memory of its own."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from stackward.core.errors import BusyError
from stackward.core.progress import Silent
from stackward.stacks.memory import Memory
from stackward.week import afterwards, chains

if TYPE_CHECKING:
    from stackward.config import Settings
    from stackward.wiring import Appliance

_LOG = logging.getLogger("stackward.daemon")


class Frequent:
    """What is known of the stacks is kept from one run to the next."""

    def __init__(self, settings: Settings) -> None:
        self._memories = {name: Memory(settings) for name in chains.FREQUENT}

    def run(self, appliance: Appliance, name: str, trigger: str) -> int:
        """Run the job and have people told of what is news; returns its exit code."""
        beside = appliance.beside(self._memories[name])
        try:
            result = chains.run(beside, name, wait=False, trigger=trigger, progress=Silent())
        except BusyError as error:
            return error.exit_code
        for job, one in result.steps:
            afterwards.tell(beside.store, job, one, beside.now())
        return result.exit_code
