"""The composition root: settings become the parts that a verb or the daemon passes on. Nothing else wires."""

from __future__ import annotations

import logging
import socket
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from stackward import stacks
from stackward.core.errors import StackwardError
from stackward.core.model import display
from stackward.runner import Runner
from stackward.steps.lease import Lease
from stackward.steps.report import heartbeat
from stackward.steps.report.delivery import HOST_NOTE
from stackward.steps.undo import Undo
from stackward.store import Store, locks_in, open_in
from stackward.tools.clock import utc_now
from stackward.tools.docker import Docker, DockerError, DockerUnavailableError
from stackward.tools.locks import Locks

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from stackward.config import Settings
    from stackward.observe.facts import Facts
    from stackward.stacks import Discovery
    from stackward.stacks.memory import Memory


_LOG = logging.getLogger(__name__)


@dataclass
class Appliance:
    """What everything is done with. Parts that cost something (Docker, discovery) are made when first asked for."""

    settings: Settings
    locks: Locks
    store: Store
    memory: Memory | None = None

    @cached_property
    def docker(self) -> Docker:
        """The client; it connects when it is used."""
        return self.memory.docker if self.memory is not None else Docker(self.settings.docker_host)

    @cached_property
    def docker_or_none(self) -> Docker | None:
        """Docker if it answers: a backup of what does not need it goes on without."""
        try:
            self.docker.ping()
        except DockerUnavailableError:
            return None
        return self.docker

    @cached_property
    def discovery(self) -> Discovery:
        """The stacks, found when first asked for."""
        return self.discover()

    def discover(self) -> Discovery:
        """The stacks and their containers as they are now."""
        if self.memory is not None:
            return self.memory.discover(self.store, self.now())
        return stacks.discover(self.settings, self.docker_or_none, self.store)

    @cached_property
    def undo(self) -> Undo:
        return Undo(self.settings.state_dir / "undo", self.docker, self.settings.crash_point)

    @cached_property
    def runner(self) -> Runner:
        return Runner(self.store, self.locks, self.now, quiet=self.memory is not None, lease=self.lease)

    @cached_property
    def lease(self) -> Lease:
        return Lease(self.settings, self.locks, lambda: self.host_name, self.now)

    @cached_property
    def host_name(self) -> str:
        """The host's own name; a container's changes whenever it is made anew. What was once known is remembered."""
        known = self.store.note(HOST_NOTE)
        try:
            name = str(self.docker.info().get("Name") or "")
        except DockerError:
            name = ""
        if name and name != known:
            self.store.set_note(HOST_NOTE, name)
        return name or known or socket.gethostname()

    def recover(self) -> list[str]:
        """Put right what killed runs left: containers start again, their runs are recorded as failed. In words.

        To be done before anything is run, and safe to do while others run.
        """
        self.store.make_writable(self.now(), self.locks)
        self.lease.take_back()
        warning, self.store.warning = self.store.warning, ""
        return [*([warning] if warning else []), *self.undo.take_back_open(), *self.runner.close_interrupted()]

    def facts(self) -> Facts:
        """What metrics say: the last look at the host, and how runs ended."""
        return replace(self.store.facts(), heartbeat_at=heartbeat.last(self.settings))

    def now(self) -> datetime:
        """Now, in the zone of schedules and of the stamps in names."""
        return utc_now().astimezone(self.settings.zone)

    def beside(self, memory: Memory) -> Appliance:
        """Another one on the same history, for a thread that asks often."""
        return Appliance(self.settings, self.locks, self.store, memory)

    def close(self) -> None:
        self.store.close()


def build(settings: Settings) -> Appliance:
    """Everything for `settings`. Creates the state directory; touches nothing else.

    Where there can be no store, what killed runs left stopped or moved is put back first: that depends on nothing else.

    Raises:
        StackwardError: the state directory cannot be made, or its database not be opened.
    """
    state: Path = settings.state_dir
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StackwardError(
            f"the state directory {display(state)} cannot be made: {error.strerror}", hint="run it as root"
        ) from error
    try:
        store = open_in(state, utc_now())
    except StackwardError:
        for message in Undo(state / "undo", Docker(settings.docker_host), settings.crash_point).take_back_open():
            _LOG.warning("%s", message)
        raise
    return Appliance(settings, locks_in(state), store)
