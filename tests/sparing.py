"""What costs tests much of their time and tells them nothing."""

from __future__ import annotations

import atexit
import gc
import os


def spare() -> None:
    """From here on this process collects no garbage among what it has imported, and waits for no disk.

    Trainers and engines collect often, and each time all that torch, TRL and vLLM hold would be walked through, which
    takes longer than most of the runs here; vLLM would undo that at each engine's end. A test kills processes but does
    not pull the plug: what was written is there without `fsync`, too. Processes that are not forked do both.
    """
    atexit.register(gc.unfreeze)  # or what nanobind holds would count as leaked at the end
    gc.freeze()
    gc.enable()
    gc.freeze = gc.unfreeze = lambda: None
    os.fsync = lambda descriptor: None
