"""What Ctrl-C and SIGTERM do: while a command starts, when Python would raise in the middle of somebody's import, and
while what is at work saves and stops.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


def end_at_once(number: int, frame: FrameType | None) -> NoReturn:
    """Say that it was interrupted, and end: an exception could be lost in a library that is being imported."""
    os.write(2, b"interrupted\n")
    os._exit(130)


def while_starting() -> None:
    """Have Ctrl-C end the process at once: nothing has been done yet that would have to be finished."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, end_at_once)


def as_usual() -> None:
    """Have Ctrl-C raise KeyboardInterrupt again, where `while_starting` had changed it."""
    if signal.getsignal(signal.SIGINT) is end_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def answering(answer: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Have `answer` take SIGINT and SIGTERM during the block; Python allows that in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, answer) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
