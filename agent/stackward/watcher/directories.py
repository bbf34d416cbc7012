"""Watches DOCKER_ROOT and the directories directly in it: stacks that come, go or change.

What the kernel tells is only when to look; what has changed is found by comparing. So nothing is lost where it tells
nothing (changes over the network), too much (its queue overflows), or grants no watches: then it is looked more often.
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from stackward.core.errors import StackwardError
from stackward.core.model import display
from stackward.core.settling import Settling
from stackward.observe.notice import Channel
from stackward.stacks import sight
from stackward.stacks.memory import CHANGED_NOTE
from stackward.steps.report import heartbeat
from stackward.tools.inotify import Inotify, WatchLimitError
from stackward.watcher import announce
from stackward.wiring import build

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from stackward.config import Settings
    from stackward.stacks.sight import Differences, Sight
    from stackward.wiring import Appliance

_LOG = logging.getLogger("stackward.watcher")

KNOWN_NOTE = "known-stacks"
MOST_WATCHES = 2000
_TURN_SECONDS = 0.5  # however much happens, it is looked at that often at the most
_WAIT_SECONDS = 1.0  # so soon it ends when it is told to
_RETRY_SECONDS = 5.0
_BEAT_SECONDS = 15.0
_REST_SECONDS = 2.0
_REST_AT_MOST_SECONDS = 30.0
_LOOK_SECONDS = 300.0
_POLL_SECONDS = 60.0
_CONFIG_JOB = "backup-config"


class Directories:
    """Of one thread. Whatever cannot be done now (DOCKER_ROOT away, a history that is locked) is tried again."""

    def __init__(self, settings: Settings, ending: threading.Event) -> None:
        self._settings = settings
        self._ending = ending
        self._appliance: Appliance = build(settings)
        self._inotify: Inotify | None = None
        self._seen: Sight | None = None
        self._limit = ""
        self._settling = Settling(_REST_SECONDS, _REST_AT_MOST_SECONDS)
        self._backup = Settling(settings.backup_on_change.total_seconds())
        self._next_look = 0.0
        self._next_beat = 0.0
        self._said = ""

    def run(self) -> None:
        while not self._ending.is_set():
            try:
                self._beat()
                self._turn()
                self._said = ""
            except (StackwardError, OSError) as error:
                if str(error) != self._said:
                    _LOG.warning("%s", error)
                self._said = str(error)
                self._next_look = 0.0
                self._ending.wait(_RETRY_SECONDS)
        if self._inotify is not None:
            self._inotify.close()
        self._appliance.close()

    def _beat(self) -> None:
        if time.monotonic() >= self._next_beat:
            heartbeat.touch(self._settings, heartbeat.WATCHER)
            self._next_beat = time.monotonic() + _BEAT_SECONDS

    def _turn(self) -> None:
        if self._appliance.store.is_replaced():
            self._appliance.close()
            self._appliance = build(self._settings)
        if self._listen():
            self._settling.touch(time.monotonic())
        now = time.monotonic()
        if self._settling.is_due(now) or now >= self._next_look:
            self._look()
            self._next_look = time.monotonic() + (_POLL_SECONDS if self._limit else _LOOK_SECONDS)
        if self._settings.backup_on_change and self._backup.is_due(time.monotonic()):
            self._appliance.store.request(_CONFIG_JOB, self._appliance.now())
            _LOG.info("the configuration has changed and come to rest: it is to be backed up")

    def _listen(self) -> bool:
        """Wait for something to happen; whether anything did."""
        self._ending.wait(_TURN_SECONDS)
        now = time.monotonic()
        patience = min(_WAIT_SECONDS, self._settling.due_in(now), self._backup.due_in(now), self._next_look - now)
        if self._inotify is None:
            self._ending.wait(max(0.0, patience))
            return False
        found = self._inotify.read(patience)
        return bool(found.events) or found.overflowed

    def _look(self) -> None:
        root = self._settings.docker_root
        self._watch([root])  # before the look: what comes in between is told
        seen = sight.look(root)
        self._watch([root, *(root / name for name in [*sorted(seen.stacks), *sorted(seen.others)])])
        found = sight.compare(self._seen if self._seen is not None else self._known(seen), seen)
        if found:
            self._tell(found)
            self._remember(seen)
        self._seen = seen

    def _known(self, seen: Sight) -> Sight:
        """The stacks that were there when we last looked, by name; at the very first look, all that are there now."""
        text = self._appliance.store.note(KNOWN_NOTE)
        if text is None:
            self._remember(seen)
            return seen
        return sight.Sight({name: seen.stacks.get(name, "") for name in json.loads(text)})

    def _remember(self, seen: Sight) -> None:
        self._appliance.store.set_note(KNOWN_NOTE, json.dumps(sorted(seen.stacks)))

    def _tell(self, found: Differences) -> None:
        """Whoever remembers stacks looks anew; resolving the changed ones now makes that quick."""
        for what, names in (("is new", found.new), ("is gone", found.gone), ("has changed", found.changed)):
            for name in names:
                _LOG.info("stack %s %s", display(name), what, extra={"stack": display(name)})
        self._backup.touch(time.monotonic())
        now = self._appliance.now()
        discovery = self._appliance.discover()
        self._appliance.store.set_note(CHANGED_NOTE, now.isoformat())
        if message := announce.new_stacks([one for one in discovery.stacks if one.name in found.new]):
            self._appliance.store.post(Channel.NOTIFY, message, now)

    def _watch(self, directories: Sequence[Path]) -> None:
        """As many of them as may be, the first ones first; the others are looked at more often instead."""
        limit = ""
        try:
            if self._inotify is None:
                self._inotify = Inotify()
            self._inotify.keep(directories[:MOST_WATCHES])
            for directory in directories[:MOST_WATCHES]:
                self._inotify.watch(directory)
            if len(directories) > MOST_WATCHES:
                limit = f"DOCKER_ROOT has more than {MOST_WATCHES} directories; not all are watched"
        except WatchLimitError as error:
            limit = str(error)
        if limit != self._limit:
            self._limit = limit
            self._appliance.store.set_note(heartbeat.WATCHER_LIMIT, limit)
            _LOG.warning("%s", limit or "the directories are watched again")
