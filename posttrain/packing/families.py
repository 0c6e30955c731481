"""What a model's configuration alone says about packing: families whose gradients were compared, and what parts rows.

No weights are needed, so that a plan can ask before anything is loaded. `checks` then looks at the model itself.
"""

from __future__ import annotations

from typing import Any

from posttrain.models.attention_names import EAGER, SDPA
from posttrain.models.positions import SCALED, is_scaled, rope_types

PLAIN = (
    "apertus", "arcee", "cohere", "ernie4_5", "ernie4_5_moe", "gemma", "glm", "glm4", "glm4_moe", "gpt2", "gpt_neox",
    "granite", "granitemoe", "helium", "hunyuan_v1_dense", "llama", "nanochat", "olmo", "olmo2", "olmoe", "qwen2_moe",
    "seed_oss",
)  # fmt: skip
"""Every token sees all before it."""

WINDOWED = (
    "cohere2", "exaone4", "gemma2", "gemma3_text", "gemma4_text", "gpt_oss", "ministral", "ministral3", "mistral",
    "mixtral", "olmo3", "phi3", "qwen2", "qwen3", "qwen3_moe", "smollm3", "starcoder2",
)  # fmt: skip
"""Some layers may see a window, of which their attention is told by the keyword `sliding_window`."""

FAMILIES = tuple(sorted((*PLAIN, *WINDOWED)))
"""Values of `config.model_type` for which a test compares packed with padded gradients. Not every model hands keywords
on to its attention: OPT, Nemotron and StableLM would silently score a row in view of its neighbours."""

MORE_IN_EAGER = ("gemma2", "gpt_oss")
"""Families whose eager attention computes what SDPA leaves out: scores under a soft cap, and sinks."""

_ATTENTION_LAYERS = {"full_attention", "sliding_attention"}
_DROPOUT_BY_FUNCTION = ("attention_dropout", "embedding_dropout", "residual_dropout")
_DROPOUT_ELSEWHERE = ("classifier_dropout", "summary_first_dropout")  # in heads for other tasks


def against(config: Any) -> str | None:
    """Why models of a configuration cannot score packed sequences; `None` if nothing in it says so.

    Args:
        config: `config.json` as transformers reads it. Where it names no attention, transformers' choice is assumed.
    """
    family = config.model_type
    layers = set(getattr(config, "layer_types", None) or ()) - _ATTENTION_LAYERS
    if layers & {"linear_attention", "hybrid", "conv", "mamba"}:
        return (
            f"layers of {', '.join(sorted(layers))} in {family}: they carry a state from token to token, and would "
            "carry it from row to row"
        )
    if config.get_text_config() is not config:
        return f"model type {family}, which reads more than text; packing has been checked for text alone"
    if family not in FAMILIES:
        return f"model type {family}; packing has been checked for {', '.join(FAMILIES)}"
    if layers:
        return f"layers of {', '.join(sorted(layers))}; packing has full and sliding attention"
    if _has_window(config) and family not in WINDOWED:
        return f"a sliding window, of which the attention of {family} is not told"
    if getattr(config, "use_bidirectional_attention", None):
        return "attention in both directions"
    if is_scaled(config):
        return (
            "rotary positions that depend on the length of the sequence "
            f"({', '.join(sorted(rope_types(config) & set(SCALED)))}): the longest row of a batch decides for all of it"
        )
    return _attention(config)


def noise(config: Any, *, modules: bool) -> str | None:
    """What dropout a configuration asks for, or other noise: rows that share a prompt would share it.

    Args:
        config: The model's.
        modules: Count dropout that is a module as well, whose `p` may have been set to 0 in a model that is there.
    """
    for key, value in config.to_dict().items():
        applied = key in _DROPOUT_BY_FUNCTION or (modules and key not in _DROPOUT_ELSEWHERE)
        if ("dropout" in key or key.endswith("pdrop")) and applied and isinstance(value, float) and value > 0:
            return f"dropout, which rows that share a prompt would share ({key} {value:g})"
    if jitter := getattr(config, "router_jitter_noise", None):
        return f"noise in the router ({jitter:g}), which rows that share a prompt would share"
    return None


def _has_window(config: Any) -> bool:
    if layers := getattr(config, "layer_types", None):
        return "sliding_attention" in layers
    return bool(getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True))


def _attention(config: Any) -> str | None:
    name = getattr(config, "_attn_implementation", None)
    more = config.model_type in MORE_IN_EAGER
    if name is None or name in SDPA or (more and name in EAGER):
        return None
    if name in EAGER:
        return f"attention {name}; packing stands in for sdpa, which computes the same"
    instead = "eager" if config.model_type == "gpt_oss" else "sdpa"
    return (
        f"attention {name}; packing stands in for {'sdpa or eager' if more else 'sdpa'}: it computes a packed layout "
        f"by torch's own kernels, and nobody has compared gradients beside {name}'s. attn_implementation: {instead} "
        "packs"
    )
