"""Which adapters vLLM serves as they are. Importing this loads no torch.

vLLM (0.31) reads of an adapter_config.json the rank, `lora_alpha`, `use_rslora`, `use_dora`, `bias` and
`modules_to_save`, and of the rest nothing: what else makes an adapter another one is passed over without a word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posttrain.recipe.adapter_kinds import ADALORA, EMBEDDINGS, names, rewrites_base

ADAPTER_CONFIG = "adapter_config.json"
SLOW_ON_A_CPU = (
    "vLLM adds adapters slowly on a CPU, where it copies them for every token: that costs more than whole weights do"
)
"""Why `rollout.lora: auto` sends whole weights there."""

REFUSES = "vLLM refuses it"
ANOTHER = "vLLM passes over it without a word, and would serve another model"

PASSED_OVER = (
    "rank_pattern", "alpha_pattern", "lora_bias", "use_bdlora", "trainable_token_indices",
    "alora_invocation_tokens", "layer_replication", "kasa_config",
)  # fmt: skip
"""Fields that make an adapter another one, and that vLLM does not read."""

SCALED = ("rank_pattern", "alpha_pattern")
"""Of these, what a run's own transfers keep: they send each layer's factors with its scaling multiplied in."""

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's `--max-lora-rank` can be."""

LARGEST_RANK = RANKS[-1]

UNMERGED = ("alora_invocation_tokens",)
"""Of these, what PEFT cannot merge either."""


def why_merged(config: Mapping[str, Any], *, four_bit: bool = False) -> str | None:
    """Why vLLM does not serve an adapter as it is; `None` if it does.

    Plain, rsLoRA, all-linear, on some layers or weights alone, and those of the other initialisations were compared
    with PEFT: they agree to 1e-5.

    Args:
        config: Its adapter_config.json.
        four_bit: Whether it was trained on a base in 4 bits, which on whole weights is another model.
    """
    if four_bit:
        return "its base is in 4 bits, and on whole weights it is another model"
    if config.get("peft_type") == ADALORA:
        return f"AdaLoRA: {REFUSES}"
    if config.get("use_dora"):
        return f"use_dora: {REFUSES}"
    if config.get("bias", "none") != "none":
        return f"bias: {config['bias']}: {REFUSES}"
    for name in ("modules_to_save", "velora_config"):
        if config.get(name):
            return f"{name}: {REFUSES}"
    targets = config.get("target_modules") or []
    if embedding := [name for name in ([] if isinstance(targets, str) else targets) if names(name, EMBEDDINGS)]:
        return f"target_modules has {embedding[0]}: {REFUSES} of families such as Qwen2"
    if rewrites_base(config.get("init_lora_weights")):
        return f"init_lora_weights: {config['init_lora_weights']}: {ANOTHER}"
    if odd := [name for name in config.get("target_parameters") or () if not name.endswith(".weight")]:
        return f"target_parameters has {odd[0]}: only weights of linear layers have been compared under vLLM"
    named = [name for name in PASSED_OVER if config.get(name)]
    return f"{named[0]}: {ANOTHER}" if named else None


def why_sent_whole(config: Mapping[str, Any]) -> str | None:
    """Why a run cannot send vLLM an adapter alone, but adds it to the weights that it sends; `None` if it can.

    What a run sends is not what lies in a folder: each layer's scaling is in its factors, and the base is the run's.

    Args:
        config: Fields of a `peft.LoraConfig`.
    """
    if rank_in(config) > LARGEST_RANK:
        return f"r: {rank_in(config)}: vLLM takes {LARGEST_RANK} at most"
    return why_merged({name: value for name, value in config.items() if name not in (*SCALED, "init_lora_weights")})


def adapter_of(recipe: Any) -> dict[str, Any] | None:
    """Fields of the `peft.LoraConfig` of a recipe's adapter, new or in the folder of its model; `None` without one."""
    if recipe.lora:
        return dict(recipe.lora.peft_kwargs())
    return adapter_config(Path(recipe.model.name).expanduser()) if recipe.model.name else None


def rank_in(config: Mapping[str, Any]) -> int:
    """The largest rank of any layer, by the fields of a `peft.LoraConfig`."""
    return max(int(config.get("r") or 0), *(config.get("rank_pattern") or {0: 0}).values())


def fix_for(config: Mapping[str, Any], merge: str) -> str:
    """What to do with an adapter that vLLM does not serve as it is.

    Args:
        config: Its adapter_config.json.
        merge: The command that merges it.
    """
    if any(config.get(name) for name in UNMERGED):
        return "load it with PEFT, which cannot merge it either"
    return f"merge it: {merge}"


def flags_for(config: Mapping[str, Any]) -> str:
    """What vLLM must be told beside `--lora-modules`, which by itself takes adapters of rank 16 at most."""
    rank = int(config.get("r") or 0)
    return "--enable-lora" + (f" --max-lora-rank {vllm_rank(rank)}" if rank > 16 else "")


def vllm_rank(rank: int) -> int:
    """The smallest rank that vLLM can be started for and that has room for this one; the rank where there is none."""
    return next((each for each in RANKS if rank <= each), rank)


def adapter_config(folder: str | Path) -> dict[str, Any] | None:
    """The adapter_config.json of a model's folder; `None` where it holds no adapter."""
    file = Path(folder) / ADAPTER_CONFIG
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
