"""Imports without the garbage collector."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """What is made in this block is there to stay, as what large libraries are made of.

    The garbage collector goes through none of it: not while it grows, which is a fifth of the time that importing torch
    and TRL takes, nor later each time that it looks, which on a tiny model was most of a training step.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # or else extension modules complain of what is left over
        if collects:
            gc.enable()
