"""A stop that was asked for is never lost, whenever the signal comes."""

from __future__ import annotations

import os
import signal

from posttrain.processes.ranks import Ranks
from posttrain.running.callbacks import StopRequest


class SignalledWhileWaiting(Ranks):
    """Two processes whose first agreement is still waited for when the scheduler's signal comes."""

    def gathered(self, value):
        if value is None:
            os.kill(os.getpid(), signal.SIGTERM)
        return [value, value]


def test_a_signal_during_the_agreement_counts_at_the_next():
    request, said = StopRequest(SignalledWhileWaiting(0, 2, 2)), []
    with request.listening(said.append):
        assert not request.agreed()  # every process answered before the signal
        assert request.agreed()
    assert request.signal == signal.SIGTERM
    assert len(said) == 1


def test_what_another_process_was_asked_is_known_here():
    class Other(Ranks):
        def gathered(self, value):
            return [value, signal.SIGTERM]

    request = StopRequest(Other(0, 2, 2))
    assert request.agreed()
    assert request.signal == signal.SIGTERM
