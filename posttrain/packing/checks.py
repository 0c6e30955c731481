"""Whether rows of a packed sequence stay apart in a model: whose code it runs, and what reaches its attention.

A class that drops the keyword `tree` on its way to the attention, or computes attention itself, would score every row
in view of its neighbours, and no error would say so.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from posttrain.models.inference import inference

TRIAL = "posttrain_tree_trial"
"""Of the attention function that `deaf` tries a model with."""


def foreign(model: Any) -> str | None:
    """What of a causal language model is not transformers' own code; `None` if all that matters here is.

    Args:
        model: Not wrapped. Its own `forward` may be replaced, as TRL does; those of its attention modules may not.
    """
    attentions = _attentions(model)
    if len(attentions) < model.config.num_hidden_layers:
        return f"{len(attentions)} attention modules for {model.config.num_hidden_layers} layers"
    for module in (model, *attentions):
        kind = _own_class(module)
        if not kind.__module__.startswith("transformers.models."):
            return f"{kind.__module__}.{kind.__name__} is not transformers' own"
    for module in attentions:
        # accelerate puts its hooks around `forward` and hands keywords on
        replaced = "forward" in vars(module) and not hasattr(module, "_hf_hook")
        if replaced or not _own_class(module).forward.__module__.startswith("transformers."):
            return f"the forward of {_own_class(module).__name__} has been replaced"
    return None


def deaf(model: Any) -> str | None:
    """Which attention module of a causal language model the keyword `tree` does not reach; `None` if it reaches all.

    The backbone reads two tokens. What is looked at is who was handed the keyword and not what came out, so there is no
    rounding to allow for, and all processes come to the same answer, whatever weights they hold by now. Models that are
    sharded, on the meta device or on several devices are not tried.
    """
    parameters = list(model.parameters())
    devices = {parameter.device for parameter in parameters}
    # Shards: FSDP2 has placements, ZeRO-3 leaves empty tensors behind
    sharded = any(hasattr(each, "placements") or not each.numel() for each in parameters)
    device = next(iter(devices))
    if sharded or len(devices) > 1 or device.type == "meta":
        return None
    AttentionInterface.register(TRIAL, _listen)
    AttentionMaskInterface.register(TRIAL, sdpa_mask)
    before, heard = model.config._attn_implementation, set[nn.Module]()
    places = torch.arange(2, device=device)[None]
    model.set_attn_implementation(TRIAL)
    try:
        # Autocast, because layers of differing precision may go together in the trainer's alone
        with inference(model), torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False):
            mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)
            model.base_model(places, position_ids=places, attention_mask=mask, use_cache=False, tree=heard)
    finally:
        model.set_attn_implementation(before)
    missed = [type(module).__name__ for module in _attentions(model) if module not in heard]
    return f"{missed[0]} is not told of the layout" if missed else None


def _listen(module: nn.Module, *states: Any, tree: set[nn.Module] | None = None, **more: Any) -> Any:
    """SDPA, which notes who asked for it with a `tree`."""
    if tree is not None:
        tree.add(module)
    return sdpa_attention_forward(module, *states, **more)


def _attentions(model: nn.Module) -> list[nn.Module]:
    def is_one(module: nn.Module) -> bool:
        return any(kind.__name__.endswith("Attention") for kind in type(module).__mro__)

    return [module for module in model.modules() if is_one(module)]


def _own_class(module: nn.Module) -> Any:
    """A module's class before FSDP2 made one of its own of it."""
    return next(kind for kind in type(module).__mro__ if not kind.__module__.startswith("torch."))
