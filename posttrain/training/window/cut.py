"""How a trainer cuts what it generates into windows, and these into micro-batches."""

from __future__ import annotations

from typing import Any, NamedTuple

from posttrain.training.window import window


class Cut(NamedTuple):
    """How a trainer cuts its windows.

    Attributes:
        rows: Completions in a window, over all processes.
        micro_batches: Of each process in a window.
        steps: Optimizer steps that share out the rows (see `window.optimizer_steps`).
        iterations: Times that each row is trained on.
    """

    rows: int
    micro_batches: int
    steps: int
    iterations: int


def cut_of(args: Any) -> Cut:
    """How a trainer with these `GRPOConfig` arguments cuts its windows."""
    steps = window.optimizer_steps(args.steps_per_generation, args.gradient_accumulation_steps)
    return Cut(args.generation_batch_size, args.steps_per_generation, steps, args.num_iterations)
