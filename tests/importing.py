"""Imported before anything large by tests, and by servers that fork them.

What is imported then is there to stay, and the garbage collector need not go through it while it grows, which is a
fifth of the time that imports take. `sparing.spare` turns it on again.
"""

from __future__ import annotations

import gc
import multiprocessing

gc.disable()

PRELOADED = [
    "tests.importing", "posttrain.cli", "posttrain.running.pipeline", "posttrain.training.trainer",
    "tests.pipeline.runs", "tests.distributed.processes", "tests.pipeline.warm",
]  # fmt: skip
"""What the server that forks imports."""


def one_server() -> None:
    """From here on processes are forked from a server that has imported these, whoever asks for one first.

    A process has one such server. A benchmark's own, with less, would have every later run import the rest: a second.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    type(context).set_forkserver_preload = lambda self, names: None  # type: ignore[method-assign]
