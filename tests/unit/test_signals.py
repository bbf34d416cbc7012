import os
import signal
import threading

import pytest

from stackward.core.errors import Interrupted
from stackward.tools.signals import deferred, interruptible


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_first_signal_interrupts_and_the_second_lets_it_unwind(number):
    unwound = []

    def run():
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            unwound.append(True)

    with pytest.raises(Interrupted, match=number.name), interruptible():
        run()
    assert unwound


def test_afterwards_signals_do_what_they_did():
    before = signal.getsignal(signal.SIGTERM)
    with interruptible():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_what_must_be_done_is_done_before_a_signal_is_seen(number):
    done = []
    with pytest.raises(Interrupted, match=number.name), interruptible():
        with deferred():
            os.kill(os.getpid(), number)
            done.append(True)
        done.append(False)
    assert done == [True]


def test_without_a_signal_deferring_changes_nothing():
    with interruptible():
        before = signal.getsignal(signal.SIGTERM)
        with deferred():
            pass
        assert signal.getsignal(signal.SIGTERM) is before


def test_other_threads_have_nothing_to_defer():
    done = []

    def work():
        with deferred():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
