"""Whether rows of a packed sequence stay apart in a model: whose code it runs, and what reaches its attention.

A class that drops the keyword `tree` on its way to the attention, or computes attention itself, would score every row
in view of its neighbours, and no error would say so. Nor would one say that a layer's mask has a window of which its
attention is not told, for a packed pass has no mask.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import causal_mask_function

from posttrain.models.inference import inference

TRIAL = "posttrain_tree_trial"
"""Of the attention function that `deaf` tries a model with."""

FAR = 1 << 20
"""Tokens back to which `deaf` asks a mask what it lets a token see; a window beyond is none."""

HEARD = ("dropout", "is_causal", "position_ids", "s_aux", "scaling", "sliding_window", "softcap")
"""Keywords of an attention that a packed pass follows, or whose value `families` has looked at in the configuration."""

OTHER_THAN_CAUSAL = -1
"""What stands for a mask that is neither causal nor that with a window."""


class Told(NamedTuple):
    """What reached an attention: the window of its mask, 0 for none, and that of its keyword; keywords unheard of."""

    mask: int
    keyword: int
    unknown: tuple[str, ...]


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
    """What an attention module of a causal language model is not told: the keyword `tree`, or the window of its mask;
    `None` if all are told.

    The backbone reads two tokens. What is looked at is who was handed what and not what came out, so there is no
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
    AttentionMaskInterface.register(TRIAL, _window)
    before, heard = model.config._attn_implementation, dict[nn.Module, Told]()
    places = torch.arange(2, device=device)[None]
    model.set_attn_implementation(TRIAL)
    try:
        # Autocast, because layers of differing precision may go together in the trainer's alone
        with inference(model), torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False):
            model.base_model(places, position_ids=places, use_cache=False, tree=heard)
    finally:
        model.set_attn_implementation(before)
    for module in _attentions(model):
        name, told = type(module).__name__, heard.get(module)
        if told is None:
            return f"{name} is not told of the layout"
        if told.unknown:
            return f"{name} asks for {', '.join(told.unknown)}, which packing does not know"
        if told.mask == OTHER_THAN_CAUSAL:
            return f"{name} has a mask that is neither causal nor a sliding window"
        if told.mask != told.keyword:
            return f"{name} has a mask with a window of {told.mask} and is told {told.keyword} (0: none)"
    return None


def _listen(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    tree: dict[nn.Module, Told] | None = None,
    scaling: float | None = None,
    **more: Any,
) -> Any:
    """SDPA, which notes who asked for it with a `tree`, and for what."""
    if tree is not None:
        window = 0 if attention_mask is None else int(attention_mask.flatten()[0])
        bias = tuple(sorted(name for name in more if name not in HEARD and isinstance(more[name], torch.Tensor)))
        tree[module] = Told(window, more.get("sliding_window") or 0, bias)
    return sdpa_attention_forward(module, query, key, value, None, scaling=scaling)


def _window(*args: Any, mask_function: Any, device: Any = "cpu", **more: Any) -> torch.Tensor:
    """In place of a mask what it says: how many tokens are seen, 0 for all, as the one entry of four dimensions."""
    if mask_function is causal_mask_function:  # whose name says it, and most have it: nothing to be tried at length
        return torch.zeros((1, 1, 1, 1), dtype=torch.long, device=device)
    found = set()
    for place in (FAR, FAR + 12345):  # chunks would move against a token, a window goes with it
        keys = torch.arange(place - FAR, place + 3)
        none = torch.zeros((), dtype=torch.long)
        seen = mask_function(none, none, torch.tensor(place), keys).broadcast_to(keys.shape)
        width = int(seen.sum())
        causal = torch.equal(seen, (keys <= place) & (keys > place - width))
        found.add((0 if width > FAR else width) if causal else OTHER_THAN_CAUSAL)
    return torch.full((1, 1, 1, 1), found.pop() if len(found) == 1 else OTHER_THAN_CAUSAL, device=device)


def _attentions(model: nn.Module) -> list[nn.Module]:
    def is_one(module: nn.Module) -> bool:
        return any(kind.__name__.endswith("Attention") for kind in type(module).__mro__)

    return [module for module in model.modules() if is_one(module)]


def _own_class(module: nn.Module) -> Any:
    """A module's class before FSDP2 made one of its own of it."""
    return next(kind for kind in type(module).__mro__ if not kind.__module__.startswith("torch."))
