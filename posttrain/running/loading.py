"""Importing what a run needs, once and without what it does not need. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module

from posttrain.processes.importing import importing


def load_libraries(*, vllm: bool) -> None:
    """Import torch, transformers, TRL and the run itself, in a process that is the run's alone.

    Args:
        vllm: Whether vLLM samples. Where it is installed TRL's trainer imports it whoever samples, for a fourth of the
            time that all imports take.
    """
    with importing(), nullcontext() if vllm else _trl_without_vllm():
        import_module("posttrain.running.pipeline")


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
