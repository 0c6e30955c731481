"""A time limit on work in this process that may never return."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

from posttrain.errors import TrainingError


@contextlib.contextmanager
def time_limit(seconds: float, doing: str, *, grace: float | None = None) -> Iterator[Callable[[], None]]:
    """Bound a block of code that calls the function it is given now and then.

    That function raises once the time is up. Where the block does not come back to call it, being stuck in a kernel or
    waiting for a device, nothing in Python can interrupt it: a little after the limit the error and the stacks of all
    threads go to stderr and the process ends with exit code 1.

    Args:
        seconds: The limit.
        doing: What the block does, for the message: "sampling 32 prompts".
        grace: Seconds between the limit and the end of the process; None is a tenth of the limit, from 2 to 30.

    Raises:
        TrainingError: from the function, when the time is up.
    """
    grace = min(max(seconds / 10, 2.0), 30.0) if grace is None else grace
    deadline = time.monotonic() + seconds

    def check() -> None:
        if time.monotonic() > deadline:
            raise _too_slow(seconds, doing)

    watchdog = threading.Timer(seconds + grace, _end_process, (seconds, doing))
    watchdog.daemon = True
    watchdog.start()
    # The same once more, in C: a thread cannot run while the stuck code holds Python's lock
    faulthandler.dump_traceback_later(seconds + 2 * grace, exit=True, file=_stderr())
    try:
        yield check
    finally:
        watchdog.cancel()
        faulthandler.cancel_dump_traceback_later()


def _too_slow(seconds: float, doing: str) -> TrainingError:
    return TrainingError(
        f"{doing} did not end within {seconds:g} s",
        expected="to be done within the time limit",
        where="rollout.time_limit_s",
        fix="raise the limit if the machine is only slow; otherwise start again, the last checkpoint is whole",
    )


def _end_process(seconds: float, doing: str) -> None:
    stream = _stderr()
    print(f"\nposttrain: error: {_too_slow(seconds, doing)}\n  the stacks of all threads:", file=stream, flush=True)
    faulthandler.dump_traceback(file=stream, all_threads=True)
    stream.flush()
    os._exit(1)


def _stderr():
    """The process's own stderr: what stands in `sys.stderr` may have no file under it."""
    return sys.__stderr__ if sys.__stderr__ is not None else sys.stderr
