"""What all tests start from."""

from __future__ import annotations

import signal

import pytest

# Of a test run in the background the shell has Ctrl-C ignored, and so would all that the tests start
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def as_wide_as_a_pipe(monkeypatch):
    """What commands print is as wide as without a terminal, whatever the environment or an earlier test says."""
    monkeypatch.delenv("COLUMNS", raising=False)
