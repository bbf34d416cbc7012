import os
import signal

import pytest

from stackward.core.errors import Interrupted
from stackward.tools.signals import interruptible


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
