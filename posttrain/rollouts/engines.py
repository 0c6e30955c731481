"""Which engine samples: one in the training process, or a server."""

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
        self, prompt_ids: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling
    ) -> list[list[Sampled]]:
        """`sampling.n` completions of each prompt, as `InProcessEngine.sample`. Each process for itself."""

    def begin(
        self,
        prompt_ids: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: Sampling,
        on_prompt: OnPrompt | None = None,
    ) -> Callable[[], list[list[Sampled]]]:
        """Start what `sample` does; its result, or its error, from the function that is returned.

        `on_prompt` is called with a prompt's place in `prompt_ids` and its completions as soon as all of these have
        ended, from whatever thread; it must be quick.
        """

    def sleep(self, level: int = 2) -> None:
        """Free the GPU's memory until there is more to sample, where the engine can; level 1 keeps the weights."""

    def fits(self, model: Any) -> bool:
        """Whether the model's weights can be loaded: it is of the kind that the engine was built for."""

    def close(self) -> None:
        """End it."""


def open_engine(
    model: Any,
    eos_token_ids: Sequence[int],
    *,
    mode: str = "colocate",
    server_base_url: str | None = None,
    weights_transfer: str = "auto",
    weights_folder: str | None = None,
    gpu_memory_utilization: float = 0.3,
    max_model_length: int | None = None,
    enable_sleep_mode: bool = False,
    time_limit_s: float = 600.0,
    dtype: str = "auto",
    seed: int = 0,
    trust_remote_code: bool = False,
    ranks: Ranks = ALONE,
) -> Engine:
    """Start an engine in this process, or connect to a server.

    Args:
        model: The policy; its configuration is what the engine is built by.
        eos_token_ids: Tokens that end a completion.
        mode: `colocate` or `server`.
        server_base_url: Of the server, which `posttrain serve` starts.
        weights_transfer, weights_folder: As for `ServerEngine`, by the names `transfer` and `weights_folder`.
        gpu_memory_utilization, max_model_length, enable_sleep_mode, time_limit_s, dtype, seed, trust_remote_code: As
            for `InProcessEngine`.
        ranks: The processes that sample. All of them open their engine at the same time: each has its own in its
            process, and all share one server.

    Raises:
        ConfigError: vLLM is not installed or cannot run this model, or the settings don't fit the machine.
        TrainingError: The server does not answer.
    """
    if mode == "server":
        from posttrain.rollouts.vllm_server import ServerEngine

        return ServerEngine(
            str(server_base_url),
            eos_token_ids=eos_token_ids,
            model=model,
            max_model_length=max_model_length,
            transfer=weights_transfer,
            weights_folder=weights_folder,
            time_limit_s=time_limit_s,
            ranks=ranks,
        )
    from posttrain.rollouts.vllm import InProcessEngine

    return ranks.together(
        lambda: InProcessEngine(
            model,
            eos_token_ids=eos_token_ids,
            max_model_length=max_model_length,
            dtype=dtype,
            gpu_memory_utilization=gpu_memory_utilization,
            enable_sleep_mode=enable_sleep_mode,
            trust_remote_code=trust_remote_code,
            time_limit_s=time_limit_s,
            seed=seed,
        )
    )
