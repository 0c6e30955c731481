"""Importing what a run needs, once and without what it does not need. Importing this loads no torch."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module


def load_libraries(*, vllm: bool) -> None:
    """Import torch, transformers, TRL and the run itself, in a process that is the run's alone.

    What is imported is there to stay: the garbage collector need not go through it again each time that it looks, which
    on a tiny model was most of a training step.

    Args:
        vllm: Whether vLLM samples. Where it is installed TRL's trainer imports it whoever samples, for a fourth of the
            time that all imports take.
    """
    if vllm:
        import_module("posttrain.running.pipeline")
    else:
        with _trl_without_vllm():
            import_module("posttrain.running.pipeline")
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # or else extension modules complain of what is left over


@contextmanager
def _trl_without_vllm() -> Iterator[None]:
    """What of TRL is imported in this block takes vLLM to be absent. Our engines do not go through TRL's."""
    from trl import import_utils

    asked = import_utils.is_vllm_available
    import_utils.is_vllm_available = lambda min_version=None: False
    try:
        yield
    finally:
        import_utils.is_vllm_available = asked
