"""Whether a training's rows are packed, and in words why they are not."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import Any

from trl import SFTConfig

from posttrain.packing.scores import install, supports
from posttrain.training.config import HybridConfig

ROUTER_LOSS = "router_aux_loss_coef: the router's loss is of whole rows; 0 leaves it out"
OWN_CHOICE = "packed: false"
"""The one reason that nobody needs to be told of: it was asked for."""


def against_packing(args: HybridConfig | SFTConfig) -> str | None:
    """Which of a training's settings goes with padded rows alone, and why; `None` if none does."""
    return settings_against(vars(args), sft=isinstance(args, SFTConfig))


def settings_against(settings: Mapping[str, Any], *, sft: bool) -> str | None:
    """As `against_packing`, of fields by name; those that are missing are at TRL's defaults.

    Args:
        settings: Fields of a `HybridConfig`, or of an `SFTConfig` and `packed`.
        sft: Whether TRL's own SFT loss is trained on, as in the warm-up.
    """
    if not settings.get("packed", True):
        return OWN_CHOICE
    if settings.get("torch_compile"):
        return "torch_compile: compiled code would be made anew for every layout"
    if settings.get("neftune_noise_alpha"):
        return "neftune_noise_alpha: the noise depends on how many positions a row has"
    for name in ("padding_free", "packing", "use_liger_kernel", "label_smoothing_factor"):
        if sft and settings.get(name):
            return f"{name}: TRL computes another loss, or lays rows out by itself"
    if settings.get("use_transformers_continuous_batching"):
        return "use_transformers_continuous_batching: transformers pages the attentions that it knows alone"
    return None


def router_loss(config: Any, coef: float | None) -> str | None:
    """Whether TRL adds the loss of a model's router, which keeps rows padded: `ROUTER_LOSS`, or `None`.

    Args:
        config: Of the model.
        coef: `router_aux_loss_coef` of the training's settings; `None` takes the model's.
    """
    text = config.get_text_config()
    own = getattr(text, "router_aux_loss_coef", 0.0)
    has_one = hasattr(text, "output_router_logits") and (own if coef is None else coef) != 0.0
    return ROUTER_LOSS if has_one else None


def pack(model: Any, args: HybridConfig | SFTConfig) -> str | None:
    """Prepare a model for packed rows, where it and the settings allow it; else say why rows stay padded."""
    return against_packing(args) or supports(model) or install(model)


def warn_of_padding(reason: str | None) -> None:
    """Warn whoever trains without a recipe; in a run libraries are silent, and its stages say it."""
    if reason and reason != OWN_CHOICE and logging.getLogger("trl").isEnabledFor(logging.WARNING):
        warnings.warn(padded_in_words(reason), stacklevel=3)


def padded_in_words(reason: str) -> str:
    """The one sentence by which it is said everywhere."""
    return f"rows are padded, not packed: {reason}"


def in_halves(padded: Mapping[str, str]) -> str | None:
    """Why rows of a hybrid step are padded, in words; `None` where none are.

    Args:
        padded: Reasons by half, `sft` and `grpo`.
    """
    reasons = list(dict.fromkeys(padded.values()))
    if len(reasons) == 1 and set(padded) == {"grpo"} and reasons[0] == ROUTER_LOSS:
        return f"of the GRPO half alone, {reasons[0]}"
    return reasons[0] if reasons else None
