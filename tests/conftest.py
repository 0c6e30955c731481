"""What all tests start from."""

from __future__ import annotations

import signal

# Of a test run in the background the shell has Ctrl-C ignored, and so would all that the tests start
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
