"""The host bridge: does it answer, and does the host see the same stacks with the same Compose?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stackward.core.model import display
from stackward.steps.doctor import Facts, Finding, error, info, ok, warn
from stackward.tools import compose, process
from stackward.tools.host import SOCKET, Bridge, BridgeUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackward.tools.host import HostInfo


def look(facts: Facts) -> Iterator[Finding]:
    settings = facts.settings
    try:
        answer = Bridge(settings.run_dir, ask_seconds=15.0).ping()
    except BridgeUnavailableError as missing:
        lost = "stacks are started and stopped with docker compose, and systemd does not know of it"
        if (settings.run_dir / SOCKET).exists():
            yield warn("host", f"{missing.message}; {lost}", missing.hint)
        else:
            advice = "run host-units/install on the host, if you want systemd to own the stacks"
            yield info("host", f"the host bridge is not installed: {lost}", advice)
        return
    yield ok("host", "the host bridge answers: stacks are started and stopped through their systemd units")
    yield from _differences(facts, answer)


def _differences(facts: Facts, answer: HostInfo) -> Iterator[Finding]:
    if Path(answer.docker_root) != facts.settings.docker_root:
        yield error(
            "host",
            f"the host's units have their stacks in {display(answer.docker_root)}, not in DOCKER_ROOT",
            "run host-units/install again: it takes over the appliance's DOCKER_ROOT",
        )
    try:
        ours = compose.version()
    except (compose.ComposeUnavailableError, process.CommandError):
        return  # told elsewhere
    if answer.compose and _release(answer.compose) != _release(ours):
        yield info(
            "compose",
            f"the host has Compose {display(answer.compose)}, the appliance {ours}",
            "start stacks through their units (`stackward host start`): two versions in turns may recreate containers",
        )


def _release(version: str) -> str:
    """The version without what a distribution adds to it."""
    return version.removeprefix("v").partition("-")[0].partition("+")[0]
