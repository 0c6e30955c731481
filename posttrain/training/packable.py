"""Whether what a training is set to goes with packed rows."""

from __future__ import annotations

from trl import SFTConfig

from posttrain.training.config import HybridConfig


def against_packing(args: HybridConfig | SFTConfig) -> str | None:
    """Which of a training's settings goes with padded rows alone, and why; `None` if none does."""
    if not getattr(args, "packed", True):
        return "packed: false"
    if args.torch_compile:
        return "torch_compile: compiled code would be made anew for every layout"
    if args.neftune_noise_alpha:
        return "neftune_noise_alpha: the noise depends on how many positions a row has"
    for name in ("padding_free", "packing", "use_liger_kernel", "label_smoothing_factor"):
        if isinstance(args, SFTConfig) and getattr(args, name):
            return f"{name}: TRL computes another loss, or lays rows out by itself"
    if getattr(args, "use_transformers_continuous_batching", False):
        return "use_transformers_continuous_batching: transformers pages the attentions that it knows alone"
    return None
