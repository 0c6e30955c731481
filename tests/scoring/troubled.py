"""Rewards that make trouble, apart from the tests so that a worker that loads them imports little."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import re
import signal
import struct
import sys
import time
from typing import Any

from posttrain.scoring.score import Score

# What a reward may write to its worker's socket, where a message is its length in four bytes and then as many
GARBAGE = {
    "garbage of text": b"garbage",
    "garbage of one byte": b"\0",
    "garbage of zeros": b"\0" * 64,
    "garbage of ones": b"\xff" * 13,
    "garbage that says there is more": struct.pack("!i", 10_000),
    "garbage in a message": struct.pack("!i", 5) + b"ready",
    "garbage of an error": struct.pack("!i", 10) + b"failed: me",
    "garbage of answers": (lambda message: struct.pack("!i", len(message)) + message)(
        pickle.dumps([(None, "surplus", 0.0)] * 99)
    ),
}


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
    elif completion == "fork":
        os.fork()
    elif completion == "fork and leave":
        if os.fork():
            os._exit(0)
    elif completion in GARBAGE:
        for fd in range(3, 100):
            with contextlib.suppress(OSError):
                os.write(fd, GARBAGE[completion])
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


def writes_when_loaded(completion: str) -> float:
    """Writes to whatever is open in the process that loads it."""
    return 1.0


writes_when_loaded.prepare = lambda: troubled("garbage of zeros")  # type: ignore[attr-defined]


def dense(completion: str, *, answer: int, prompt: str) -> Score:
    """For a trainer's tests: most completions differ in it, and some fail."""
    if len(completion) % 5 == 0:
        raise ValueError(completion)
    return Score(len(set(completion)) / 40 + 0.5 * (str(answer) in completion), note=prompt)


def reads_group(completion: str, *, group_completions: list[str], **row: Any) -> float:
    """0.15 s for each of its group's completions, or as good as for ever where one of these says so."""
    time.sleep(60 if "hang" in group_completions else 0.15 * len(group_completions))
    return group_completions.index(completion) / 10


def sometimes(completion: str, n: int) -> float:
    return 1 / (n % 3)


def noted(completion: str, *, prompt: str, n: int, log: str, seconds: float = 0.0, **row: Any) -> Score:
    """Leaves a line in a file for each time that it is called."""
    time.sleep(seconds)
    with open(log, "a") as file:  # noqa: PTH123
        file.write(f"{prompt}/{completion}/{n}\n")
    return Score(len(completion) / 100, note=f"{prompt} {n} {sorted(row)}")
