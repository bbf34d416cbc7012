"""What a verb gets: the appliance, wired when it is first asked for, and where to print."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING, Self

from stackward import config
from stackward.cli.output import Output
from stackward.wiring import Appliance, build

if TYPE_CHECKING:
    from stackward.config import Settings


class Context:
    """`human` forces tables (True) or JSON (False); None lets the terminal decide."""

    def __init__(self, *, human: bool | None = None) -> None:
        self._human = human
        # What a run meets is in its result; only what nobody expected goes to standard error as well.
        logging.basicConfig(level=logging.ERROR, format="stackward: %(message)s")

    @cached_property
    def settings(self) -> Settings:
        """Raises SettingsError, with everything that is wrong at once."""
        return config.from_process()

    @cached_property
    def appliance(self) -> Appliance:
        return build(self.settings)

    @cached_property
    def output(self) -> Output:
        return Output(human=self._human)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if "appliance" in self.__dict__:
            self.appliance.close()
