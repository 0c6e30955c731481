"""Rewards that make trouble, apart from the tests so that a worker that loads them imports little."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import time
from typing import Any

from posttrain.reward import Score


def troubled(completion: str, *, n: int = 0, **row: Any) -> float | Score:
    """Does what the completion says."""
    if completion == "loop":
        while True:
            pass
    elif completion == "power":
        10**9 ** len("123456789")
    elif completion == "regex":
        re.match(r"(a+)+$", "a" * 60 + "b")
    elif completion == "sleep":
        time.sleep(60)
    elif completion == "_exit":
        os._exit(3)
    elif completion == "segfault":
        ctypes.string_at(0)
    elif completion == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif completion == "exit":
        sys.exit("enough")
    elif completion == "interrupt":
        raise KeyboardInterrupt
    elif completion == "memory":
        return len(bytearray(2**35))
    elif completion == "list":
        endless: list[Any] = []
        while True:
            endless.append([])
    elif completion == "exception":
        raise KeyError("gold")
    elif completion == "print":
        for _ in range(3000):
            print("flood" * 20)
            print("flood" * 20, file=sys.stderr)
        os.write(1, b"flood" * 1000)
    elif completion == "closed":
        os.closerange(0, 100)
    return n / 100


class OnlyHere:
    """A reward that can be pickled and cannot be unpickled."""

    def __call__(self, completion: str) -> float:
        return 1.0

    def __setstate__(self, state: Any) -> None:
        raise ImportError("no such thing in a worker")

    def __getstate__(self) -> dict[str, int]:
        return {"a": 1}


class Deadly(OnlyHere):
    """A reward whose worker dies while it loads it."""

    def __setstate__(self, state: Any) -> None:
        os.write(2, b"some last words")
        os._exit(7)


_prepared = False


def slow_to_load(completion: str) -> float:
    """Hangs where nobody has called `prepare`, which takes longer than the tests' time limit."""
    while not _prepared:
        time.sleep(1)
    return 1.0


def _prepare() -> None:
    global _prepared
    time.sleep(0.6)
    _prepared = True


slow_to_load.prepare = _prepare  # type: ignore[attr-defined]
