"""Which stacks a verb is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackward.core.errors import SettingsError
from stackward.core.model import display
from stackward.core.values import suggest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackward.core.model import Stack
    from stackward.stacks import Discovery


def choose(discovery: Discovery, names: Sequence[str]) -> list[Stack]:
    """The stacks that are named, or all. Raises SettingsError for a name that is none."""
    for name in names:
        if discovery.stack(name) is None:
            hint = suggest(name, [stack.name for stack in discovery.stacks]) or "`stackward stacks` names them"
            raise SettingsError(f"there is no stack {display(name)}", hint=hint)
    return [stack for stack in discovery.stacks if not names or stack.name in names]


def require_opted_in(discovery: Discovery) -> None:
    """For a config backup that somebody asks for: without a stack that is opted in, nothing is written.

    Raises:
        SettingsError: no stack is.
    """
    if not any(stack.opted_in for stack in discovery.stacks):
        raise SettingsError(
            "no stack is opted in, so nothing was backed up: without a label nothing is written, not even the configuration",
            hint="`stackward init` proposes a label for each stack",
        )
