"""Building a vLLM engine in this process: what it is built from, and what would keep it from being built."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from posttrain.errors import ConfigError
from posttrain.models.policy_weights import base_model, check_weights, is_tied
from posttrain.rollouts.vllm_package import WORKER_EXTENSION

GIB = 2**30
CPU_BLOCK = 128
"""Tokens in a block of vLLM's KV cache on a CPU."""
SPARE_BLOCKS = 64


def start(folder: str, options: dict[str, Any], max_num_batched_tokens: int) -> Any:
    """A `vllm.LLM` with placeholder weights, ready to be sent others.

    Args:
        folder: Holds the model's config.json.
        options: Arguments of `vllm.LLM`.
        max_num_batched_tokens: Most tokens of one forward pass.
    """
    from vllm import LLM
    from vllm.v1.executor.uniproc_executor import UniProcExecutor

    return LLM(
        folder,
        load_format="dummy",
        skip_tokenizer_init=True,
        generation_config="vllm",
        logprobs_mode="processed_logprobs",
        max_num_batched_tokens=max_num_batched_tokens,
        worker_extension_cls=WORKER_EXTENSION,
        # By its name, "uni", vLLM 0.22 would start another process on a CPU
        **{"distributed_executor_backend": UniProcExecutor} | options,
    )


@contextlib.contextmanager
def kept_process_group() -> Iterator[None]:
    """Run the block; an engine that ends in it leaves `torch.distributed` alone, which it would take down otherwise."""
    from vllm.v1.engine import core

    def nothing(shutdown_ray: bool = False) -> None:
        pass

    take_down = core.cleanup_dist_env_and_memory
    core.cleanup_dist_env_and_memory = nothing
    try:
        yield
    finally:
        core.cleanup_dist_env_and_memory = take_down


def check_machine(enable_sleep_mode: bool, tensor_parallel_size: int, processes: int) -> None:
    """Raise ConfigError for settings that this machine or this number of processes cannot serve."""
    if enable_sleep_mode and not torch.cuda.is_available():
        raise ConfigError(
            "sleep mode without a GPU",
            expected="a GPU, whose memory it frees",
            where="rollout.enable_sleep_mode",
            fix="set it to false",
        )
    if processes % tensor_parallel_size:
        raise ConfigError(
            f"tensor_parallel_size {tensor_parallel_size} with {processes} process(es)",
            expected="a divisor of the number of training processes",
            where="tensor_parallel_size",
            fix="start as many processes with accelerate launch, or sample from a vLLM server",
        )


def engine_config(model: Any) -> Any:
    """A copy of the policy's configuration that says what vLLM must know and nothing of where weights come from.

    Raises:
        ConfigError: weights that could not be sent to the engine.
    """
    if not isinstance(model, nn.Module):
        return copy.deepcopy(model)
    check_weights(model)
    base = base_model(model)
    config = copy.deepcopy(base.config)
    config.architectures = [architecture(base)]
    config.tie_word_embeddings = is_tied(model)
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # such as a GGUF file's, whose weights were dequantised
    return config


def architecture(model: nn.Module) -> str:
    """The name of the model's class, without what FSDP2 makes of it."""
    return next(kind.__name__ for kind in type(model).__mro__ if not issubclass(kind, FSDPModule))


def engine_dtype(name: str, model: Any, config: Any, on_cpu: bool) -> torch.dtype:
    """What the engine computes in; "auto" is the policy's own, but 16 bits on a GPU."""
    if name != "auto":
        return getattr(torch, name)
    own = base_model(model).dtype if isinstance(model, nn.Module) else config.dtype or torch.float32
    if own is torch.float32 and not on_cpu:
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return own


def cpu_cache_bytes(config: Any, dtype: torch.dtype, max_model_length: int, max_num_seqs: int) -> int:
    """The KV cache's size on a CPU: as the user set it; or else what the longest sequences need, up to 1 GiB."""
    if os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
        return int(float(os.environ["VLLM_CPU_KVCACHE_SPACE"]) * GIB)
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    token = 2 * text.num_hidden_layers * heads * width * dtype.itemsize
    blocks = max_num_seqs * -(-max_model_length // CPU_BLOCK) + SPARE_BLOCKS
    return min(GIB, token * CPU_BLOCK * blocks)


class Unserved(ConfigError):
    """vLLM cannot sample from a model on this machine; transformers may."""


def cannot_build(error: BaseException) -> Unserved:
    """What vLLM objects to, as an error of the recipe."""
    return Unserved(
        f"vLLM cannot sample from this model here: {error}",
        where="rollout.engine",
        fix="change what it names (a shorter rollout.max_model_length needs less memory), or set rollout.engine: "
        "transformers",
    )
