"""A signal to end becomes `Interrupted` in the main thread, so that a run unwinds like after any other error."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stackward.core.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

# How long a run may unwind (start containers, remove what is half made) before a second signal cuts that short.
UNWIND_SECONDS = 30.0
# SIGHUP: the terminal went away.
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the body the first signal raises `Interrupted`; further ones are ignored while it unwinds."""
    quiet_until = 0.0

    def interrupt(number: int, _frame: FrameType | None) -> None:
        nonlocal quiet_until
        now = time.monotonic()
        if now < quiet_until:
            return
        quiet_until = now + UNWIND_SECONDS
        raise Interrupted(signal.Signals(number).name)

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[None]:
    """Within the body no signal to end is seen; one that came meanwhile is sent again on leaving.

    For what must not be left half done, like letting a stack go on. In another thread than the main one, where signals
    raise nothing, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _frame: came.append(number)) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            os.kill(os.getpid(), came[0])
