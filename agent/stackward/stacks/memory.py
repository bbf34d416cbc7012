"""The stacks, for who asks every few minutes: containers as they are now, the rest as it was found a while ago.

Directories, compose files and trees are looked at anew when the watcher has seen a change, and every now and then, since
nobody sees every change.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from stackward.stacks import membership
from stackward.stacks.discovery import Discovery, discover
from stackward.tools.docker import Docker, DockerError

if TYPE_CHECKING:
    from stackward.config import Settings
    from stackward.store import Store

CHANGED_NOTE = "stacks-changed"  # the watcher writes there when it last saw a change
_AT_MOST = timedelta(minutes=30)
PATIENCE_SECONDS = 30.0
_PAUSE_SECONDS = 1.0


class Memory:
    """Of one thread."""

    def __init__(self, settings: Settings, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._settings = settings
        self._patience_seconds = patience_seconds
        self.docker = Docker(settings.docker_host)
        self._found: Discovery | None = None
        self._found_at: datetime | None = None
        self._change: str | None = None

    def discover(self, store: Store, now: datetime) -> Discovery:
        """Raises as `discover`."""
        change = store.note(CHANGED_NOTE)
        if self._found is not None and not self._found.docker_error and self._is_fresh(change, now):
            self._answers()
            return with_containers_of_now(self._found, self.docker, self._settings)
        self._found = discover(self._settings, self._docker_or_none(), store)
        self._found_at, self._change = now, change
        return self._found

    def _is_fresh(self, change: str | None, now: datetime) -> bool:
        since = self._found_at
        return since is not None and timedelta(0) <= now - since < _AT_MOST and change == self._change

    def _docker_or_none(self) -> Docker | None:
        return self.docker if self._answers() else None

    def _answers(self) -> bool:
        """Docker may be about to come back: it is given a moment, so that nobody is told of every restart of it."""
        deadline = time.monotonic() + self._patience_seconds
        while True:
            try:
                self.docker.ping()
            except DockerError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(_PAUSE_SECONDS)
            else:
                return True


def with_containers_of_now(found: Discovery, docker: Docker, settings: Settings) -> Discovery:
    """What was found, with the containers as they are; without any where Docker does not answer, and it says so."""
    try:
        containers, error = docker.containers(), ""
    except DockerError as failure:
        containers, error = [], failure.message
    stacks = tuple(
        replace(stack, containers=membership.members(containers, stack.directory, stack.project))
        for stack in found.stacks
    )
    known = [container for stack in stacks for container in stack.containers]
    projects = frozenset(stack.project for stack in stacks)
    elsewhere = membership.outside(containers, known, projects, settings.docker_root)
    return replace(found, stacks=stacks, outside=elsewhere, docker_error=error)
