"""Work in several threads of this process, which share torch's.

Torch wakes its own threads for each operation. Of many short ones that takes as long as they do, and all that is
between them runs on one core; threads with some of the work each wait for nothing but the interpreter, which an
operation lets go of.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

__all__ = ["set_num_threads", "side_by_side"]

T = TypeVar("T")

SWITCH_S = 3e-4
"""Seconds after which a thread asks another for the interpreter, as long as a few operations; Python's own are 5e-3."""

set_num_threads: Callable[[int], None] = getattr(torch._C, "set_num_threads", torch.set_num_threads)
"""Torch's own. Once vLLM has built an engine for a CPU, `torch.set_num_threads` may be one that does nothing."""


def side_by_side(work: Sequence[Callable[[], T]], stop: threading.Event | None = None) -> list[T]:
    """What each of these returns. The first runs in this thread, the others beside it.

    Of what torch keeps by thread, such as whether there are gradients, those beside it have the defaults.

    Args:
        work: At least one.
        stop: Set as soon as one of them fails: the others should return soon, for they are waited for, and their
            results are for nothing.

    Raises:
        BaseException: The first that failed, by its place.
    """
    threads = torch.get_num_threads()
    if len(work) == 1:
        return [work[0]()]
    stop = threading.Event() if stop is None else stop
    interval = sys.getswitchinterval()
    sys.setswitchinterval(min(interval, SWITCH_S))

    def one(each: Callable[[], T]) -> T:
        set_num_threads(max(1, threads // len(work)))  # of this thread, and of those that begin later
        try:
            return each()
        except BaseException:
            stop.set()
            raise

    try:
        with ThreadPoolExecutor(len(work) - 1, thread_name_prefix="side-by-side") as pool:
            others = [pool.submit(one, each) for each in work[1:]]
            try:
                return [one(work[0]), *(each.result() for each in others)]
            except BaseException:  # also what interrupts the waiting
                stop.set()
                raise
    finally:
        set_num_threads(threads)
        sys.setswitchinterval(interval)
