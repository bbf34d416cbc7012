"""Starting and stopping whole stacks: through the host's systemd, which owns their lifecycle, or else through Compose."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from stackward.core.errors import RefusedError
from stackward.core.model import display
from stackward.core.unit_names import stack_unit
from stackward.tools import compose
from stackward.tools.host import BridgeUnavailableError

if TYPE_CHECKING:
    from stackward.core.model import Stack
    from stackward.tools.docker import Docker
    from stackward.tools.host import Answer, Bridge

SYSTEMD = "systemd"
COMPOSE = "docker compose"


class Act(StrEnum):
    START = "start"
    STOP = "stop"
    RESTART = "restart"


@dataclass(frozen=True, slots=True)
class Done:
    """`through` is SYSTEMD or COMPOSE; `state` is the unit's word, or "queued"; `notes` say what was out of the ordinary."""

    through: str
    state: str
    notes: tuple[str, ...] = ()


def carry_out(act: Act, stack: Stack, *, bridge: Bridge, docker: Docker | None, is_own: bool) -> Done:
    """Start, stop or restart a stack. `is_own` says that it is the appliance's own.

    Raises:
        BridgeError: systemd could not do it; its lines have the end of the unit's journal.
        CommandError: Compose could not do it.
        RefusedError: without the host's help, the appliance would be stopped and never started again.
    """
    try:
        bridge.ping()
    except BridgeUnavailableError as missing:
        return _through_compose(act, stack, is_own, missing.message)
    return _through_systemd(act, stack, bridge, docker, is_own=is_own)


def _through_compose(act: Act, stack: Stack, is_own: bool, why: str) -> Done:
    if is_own and act is not Act.START:
        raise RefusedError(
            f"the appliance cannot {act} itself: {why}",
            hint=f"on the host: docker compose --project-directory {display(stack.directory)} {act}",
        )
    if act is not Act.START:
        compose.stop(stack.directory)
    if act is not Act.STOP:
        compose.up(stack.directory)
    return Done(COMPOSE, "inactive" if act is Act.STOP else "active", (why,))


def _through_systemd(act: Act, stack: Stack, bridge: Bridge, docker: Docker | None, *, is_own: bool) -> Done:
    unit = stack_unit(stack.name)
    notes: tuple[str, ...] = ()
    if act is not Act.START and not is_own and _runs_without_its_unit(unit, stack, bridge, docker):
        compose.stop(stack.directory)
        notes = (f"it ran although {unit} was not started",)
    request = {Act.START: bridge.start, Act.STOP: bridge.stop, Act.RESTART: bridge.restart}[act]
    answer: Answer = request(unit)
    return Done(SYSTEMD, answer.text, notes)


def _runs_without_its_unit(unit: str, stack: Stack, bridge: Bridge, docker: Docker | None) -> bool:
    """Somebody called `docker compose up` by hand: then systemd would have nothing to stop."""
    if docker is None or bridge.show(unit).active not in ("inactive", "failed"):
        return False
    return any(container.state != "exited" for container in docker.containers(stack.project) if not container.one_off)
