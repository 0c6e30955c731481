"""Where a token of a padded row stands: counted from the row's own first token, as the one who samples counts.

Left to themselves many models of transformers number a batch's columns, mask or no mask. Padding on the left then
shifts a row, which learned and sinusoidal positions see, and so do rotary ones with a norm behind the rotation
(Hunyuan). Sampling (model.generate() and ours) numbers by the mask. `count_by_mask` has every pass of a trainer do so.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from torch import nn
from transformers import PreTrainedModel

from posttrain.models.policy_weights import base_model

DISTANCES = (
    "cohere", "gemma", "gpt_neox", "granite", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3",
    "starcoder2",
)  # fmt: skip
"""Values of `config.model_type` for which a test shows that only distances count: these are left as they are, whose
numbers are those of TRL to the last bit."""

SCALED = ("dynamic", "longrope")
"""Kinds of rotary positions that depend on the largest one of a batch."""

_MARK = "posttrain_counts_by_mask"


def sees_distances(config: Any) -> bool:
    """Whether a model is known to see only how far apart tokens are, so that padding on the left shifts nothing."""
    return config.model_type in DISTANCES and not is_scaled(config)


def is_scaled(config: Any) -> bool:
    """Whether rotary positions change with the length of the longest row."""
    return bool(rope_types(config) & set(SCALED))


def rope_types(config: Any) -> set[str]:
    """Kinds of rotary positions of all layers: `rope_parameters` are of every layer, or a dictionary by its type."""
    parameters = getattr(config, "rope_parameters", None) or {}
    each = [parameters, *(value for value in parameters.values() if isinstance(value, dict))]
    return {found["rope_type"] for found in each if found.get("rope_type")}


def count_by_mask(model: nn.Module) -> None:
    """Have a model take positions from the mask where it is given one and no positions; again changes nothing.

    Models that see distances alone, that take no `position_ids`, or that number their inputs in a way of their own
    (encoder and decoder, several modalities) are left as they are.

    Args:
        model: A causal language model, wrapped or not.
    """
    base = _causal_lm(model)
    if counts_by_mask(base) or not isinstance(base, PreTrainedModel) or sees_distances(base.config):
        return
    takes = "position_ids" in inspect.signature(type(base).forward).parameters
    parts = base.config.is_encoder_decoder or base.config.get_text_config(decoder=True) is not base.config
    if takes and not parts:
        base.register_forward_pre_hook(_number, with_kwargs=True)
        setattr(base, _MARK, True)


def counts_by_mask(model: nn.Module) -> bool:
    """Whether `count_by_mask` has changed a model, wrapped or not."""
    return bool(getattr(_causal_lm(model), _MARK, False))


def from_mask(mask: torch.Tensor) -> torch.Tensor:
    """Positions (B, T) of a mask (B, T): 0, 1, ... from a row's first token on; padding before it has 0."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


def _number(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    mask = kwargs.get("attention_mask")
    if kwargs.get("position_ids") is not None or not isinstance(mask, torch.Tensor) or mask.dim() != 2:
        return None
    read = kwargs.get("inputs_embeds")
    if read is None:
        read = args[0] if args else kwargs["input_ids"]
    # A mask also covers what is in a cache, such as a learned prefix
    return args, {**kwargs, "position_ids": from_mask(mask)[:, -read.size(1) :]}


def _causal_lm(model: nn.Module) -> Any:
    inner: Any = extract_model_from_parallel(model, keep_fp32_wrapper=True)
    return base_model(inner)
