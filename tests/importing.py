"""Imported before anything large by tests, and by servers that fork them.

What is imported then is there to stay, and the garbage collector need not go through it while it grows, which is a
fifth of the time that imports take. `sparing.spare` turns it on again.
"""

from __future__ import annotations

import gc

gc.disable()

PRELOADED = [
    "tests.importing", "posttrain.cli", "posttrain.running.pipeline", "posttrain.training.trainer",
    "tests.pipeline.runs", "tests.distributed.processes", "tests.pipeline.warm",
]  # fmt: skip
"""What a server that forks imports. A process has one such server: whoever asks first says what it imports."""
