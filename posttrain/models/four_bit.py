"""A base model whose linear layers are held in 4 bits by bitsandbytes, under an adapter that trains (QLoRA,
arXiv 2305.14314).

What differs from TRL and from bitsandbytes as they are:

- Adapters train in the dtype they were loaded in, float32. TRL rounds those on a quantised base to bfloat16, where most
  steps at a usual learning rate change nothing, and would round a warmed-up adapter again at the start of stage 2.
- On a CPU with bfloat16 instructions bitsandbytes repacks a layer at its first pass in eval mode and goes on with
  rounded numbers and without a gradient, in training mode too: training after an evaluation would be wrong and say
  nothing. That path is turned off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from posttrain.models.bitsandbytes_package import check_installed


def loading_options(four_bit: Mapping[str, Any], dtype: str, *, where: str = "model.load_in_4bit") -> dict[str, Any]:
    """The arguments of `from_pretrained` that quantise a model while it is loaded.

    Args:
        four_bit: `bnb_4bit_quant_type`, `bnb_4bit_use_double_quant` as `BitsAndBytesConfig` takes them, and `on_gpu`.
        dtype: What is computed in, and what the other weights are held in.
        where: The key that asked for it.

    Raises:
        ConfigError: bitsandbytes is not installed.
    """
    check_installed(where)
    settings = dict(four_bit)
    # Said outright: left out, transformers takes a GPU wherever there is one
    device = torch.cuda.current_device() if settings.pop("on_gpu") else "cpu"
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=dtype, **settings)
    return {"quantization_config": config, "device_map": {"": device}}


def is_four_bit(model: nn.Module) -> bool:
    """Whether a policy has weights in 4 bits, under an adapter or not."""
    return bool(getattr(model, "is_loaded_in_4bit", False))


def without_cpu_shortcut(model: Any) -> Any:
    """The model, whose 4-bit layers compute alike in eval and in training mode, on a CPU too."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def is_quantised(parameter: torch.Tensor) -> bool:
    """Whether a parameter's numbers are codes of 4 bits that bitsandbytes can turn into numbers again."""
    return getattr(parameter, "quant_state", None) is not None


def dequantised(parameter: Any) -> torch.Tensor:
    """What a 4-bit parameter stands for: its layer's weight, (out, in), in the dtype it was quantised from."""
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(parameter.data, parameter.quant_state)


@contextmanager
def adapters_kept(model: Any) -> Iterator[None]:
    """Run the block, in which TRL makes a trainer, and give what trains on a 4-bit base its own numbers again.

    Args:
        model: What the trainer is given; anything but a model with a 4-bit base is left alone.
    """
    kept = {}
    if isinstance(model, nn.Module) and is_four_bit(model):
        without_cpu_shortcut(model)  # of one that was loaded elsewhere
        kept = {name: (p, p.data) for name, p in model.named_parameters() if p.requires_grad}
    yield
    for parameter, values in kept.values():
        parameter.data = values.to(parameter.device)
