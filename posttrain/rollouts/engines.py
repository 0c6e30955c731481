"""Which engine samples: one in the training process, or a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from posttrain.processes.ranks import Ranks
from posttrain.rollouts.engine import ALONE, Engine


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
    lora: str = "auto",
    lora_rank: int | None = None,
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
        lora, lora_rank: As for `InProcessEngine`; a server has the rank that it was started for.
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
            lora=lora,
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
            lora=lora,
            lora_rank=lora_rank,
        )
    )
