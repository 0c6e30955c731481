"""What trainers and evaluations ask of an engine that samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from posttrain.processes.ranks import Ranks
from posttrain.rollouts.sampling import Sampled, Sampling

ALONE = Ranks()
"""A process by itself."""


OnPrompt = Callable[[int, list[Sampled]], None]
"""Told of the completions of a prompt."""


class Engine(Protocol):
    """What trainers and evaluations ask of an engine."""

    dtype: torch.dtype
    """What it computes in."""

    samples_aside: bool
    """Whether what `begin` began goes on while this process computes: a server's does."""

    def load(self, model: Any) -> None:
        """Take over the model's weights, all of them. Where there are several processes, all call it."""

    def sample(
        self,
        prompt_ids: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: Sampling,
        *,
        limits: Sequence[int] | None = None,
    ) -> list[list[Sampled]]:
        """`sampling.n` completions of each prompt, as `InProcessEngine.sample`. Each process for itself."""

    def begin(
        self,
        prompt_ids: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: Sampling,
        on_prompt: OnPrompt | None = None,
        limits: Sequence[int] | None = None,
    ) -> Callable[[], list[list[Sampled]]]:
        """Start what `sample` does; its result, or its error, from the function that is returned.

        `on_prompt` is called with a prompt's place in `prompt_ids` and its completions as soon as all of these have
        ended, from whatever thread; it must be quick. `limits` are most tokens of each prompt's completions, where that
        is less than `sampling.max_tokens`.
        """

    def sleep(self, level: int = 2) -> None:
        """Free the GPU's memory until there is more to sample, where the engine can; level 1 keeps the weights."""

    def fits(self, model: Any) -> bool:
        """Whether the model's weights can be loaded: it is of the kind that the engine was built for."""

    def close(self) -> None:
        """End it."""
