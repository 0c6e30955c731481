"""Which models are packed and which are padded, and why: one table for the tests and for docs/packing.md.

    python -m tests.packing.families > docs/packing.md

Small random models of the real architectures: four query heads, 8 rows in 2 groups with prompts of up to 12 tokens and
completions of up to 9, windows of 4 tokens. The error is that of the whole gradient of a loss over log-probabilities
and entropies, packed against TRL's padded rows, in float32 on a CPU.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Any, NamedTuple

from transformers import CONFIG_MAPPING

from posttrain.packing.scores import install, row_scores, supports
from tests.training.test_tree import BATCHES, GROUPED, OWN, gradient, rows, tiny, trl_scores


class Case(NamedTuple):
    """A model: its `model_type`, changes to the small model of it, and its attention."""

    family: str
    settings: dict[str, Any]
    attention: str = "sdpa"


EXPERTS = {
    **GROUPED, "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4, "moe_k": 2,
    "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
    "first_k_dense_replace": 1,
}  # fmt: skip
WINDOW = {**GROUPED, "sliding_window": 4}
MIXED = {**WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
OPTED = {**WINDOW, "use_sliding_window": True, "max_window_layers": 1}
CAP = {"attn_logit_softcapping": 0.5, "query_pre_attn_scalar": 1}
GEMMA4 = {**MIXED, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 61, "global_head_dim": 16}
SHARED = {
    "num_hidden_layers": 4, "num_kv_shared_layers": 2, "layer_types": ["sliding_attention", "full_attention"] * 2
}  # fmt: skip


def _experts(family: str) -> dict[str, Any]:
    known = CONFIG_MAPPING[family]()
    return {**{name: value for name, value in EXPERTS.items() if hasattr(known, name)}, **OWN.get(family, {})}


PACKED = {
    **{name: Case(name, OWN.get(name, GROUPED)) for name in (
        "apertus", "arcee", "cohere", "ernie4_5", "gemma", "glm", "glm4", "gpt2", "gpt_neox", "granite", "helium",
        "hunyuan_v1_dense", "llama", "nanochat", "olmo", "olmo2", "qwen2", "qwen3", "smollm3", "starcoder2",
    )},
    "mistral without a window": Case("mistral", OWN["mistral"]),
    "phi3 without a window": Case("phi3", {**OWN["phi3"], "sliding_window": None}),
    "seed_oss without dropout": Case("seed_oss", {**GROUPED, "attention_dropout": 0.0, "residual_dropout": 0.0}),
    **{name: Case(name, _experts(name)) for name in (
        "ernie4_5_moe", "glm4_moe", "granitemoe", "olmoe", "qwen2_moe", "qwen3_moe"
    )},
    **{f"{name}, window": Case(name, WINDOW) for name in ("ministral3", "mistral")},
    "mixtral": Case("mixtral", {**_experts("mixtral"), "sliding_window": None}),
    "mixtral, window": Case("mixtral", {**_experts("mixtral"), **WINDOW}),
    "phi3, window": Case("phi3", {**OWN["phi3"], "sliding_window": 4}),
    "starcoder2, window": Case("starcoder2", {**OWN["starcoder2"], "sliding_window": 4}),
    **{f"{name}, window in some layers": Case(name, MIXED) for name in (
        "cohere2", "exaone4", "gemma3_text", "ministral", "olmo3"
    )},
    **{f"{name}, use_sliding_window": Case(name, OPTED) for name in ("qwen2", "qwen3")},
    "qwen3_moe, use_sliding_window": Case("qwen3_moe", {**_experts("qwen3_moe"), **OPTED}),
    "smollm3, use_sliding_window": Case("smollm3", {**OPTED, **MIXED, "no_rope_layers": [0, 1]}),
    "gemma4_text, window in some layers": Case("gemma4_text", {**GEMMA4, "num_kv_shared_layers": 0}),
    "gemma4_text, layers that share keys": Case("gemma4_text", {**GEMMA4, **SHARED}),
    "gemma2, window, no soft cap (sdpa has none)": Case("gemma2", MIXED),
    "gemma2, window, soft cap": Case("gemma2", {**MIXED, **CAP}, "eager"),
    "gpt_oss, window, sinks": Case("gpt_oss", {**_experts("gpt_oss"), **MIXED}, "eager"),
}  # fmt: skip

LONGROPE = {
    "rope_parameters": {
        "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 48, "long_factor": [2.0] * 48,
        "original_max_position_embeddings": 4096,
    }
}  # fmt: skip
BY_LAYER = {
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        "full_attention": {"rope_type": "dynamic", "rope_theta": 1e6, "factor": 2.0},
    }
}
NTK_ALPHA = {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 1.0, "alpha": 1000.0}}

PADDED = {
    **{name: (Case(name, {}), "carry a state from token to token") for name in (
        "bamba", "falcon_h1", "granitemoehybrid", "qwen3_5_text", "qwen3_5_moe_text", "qwen3_next"
    )},
    "lfm2": (Case("lfm2", {"full_attn_idxs": [2, 5]}), "carry a state from token to token"),
    **{name: (Case(name, {}), "reads more than text") for name in ("gemma3", "gemma4")},
    "phi3, longrope": (Case("phi3", LONGROPE), "longest row of a batch decides"),
    "hunyuan_v1_dense, dynamic": (Case("hunyuan_v1_dense", NTK_ALPHA), "longest row of a batch decides"),
    "gemma3_text, dynamic in some layers": (Case("gemma3_text", BY_LAYER), "longest row of a batch decides"),
    "qwen2_moe, use_sliding_window": (Case("qwen2_moe", {"use_sliding_window": True}), "is not told"),
    "seed_oss as published": (Case("seed_oss", {}), "attention_dropout 0.1"),
    "starcoder2, embedding dropout": (Case("starcoder2", {"embedding_dropout": 0.1}), "embedding_dropout 0.1"),
    "mixtral, router noise": (Case("mixtral", {"router_jitter_noise": 0.1}), "noise in the router"),
    "gemma3_text, bidirectional": (Case("gemma3_text", {"use_bidirectional_attention": True}), "both directions"),
    **{name: (Case(name, {}), f"model type {name}") for name in (
        "deepseek_v3", "llama4_text", "nemotron", "opt", "phi", "phimoe", "stablelm"
    )},
    "llama, flash_attention_2": (Case("llama", {}, "flash_attention_2"), "attn_implementation: sdpa packs"),
    "gpt_oss, flash_attention_3": (Case("gpt_oss", {}, "flash_attention_3"), "attn_implementation: eager packs"),
    "llama, flex_attention": (Case("llama", {}, "flex_attention"), "attn_implementation: sdpa packs"),
    "llama, eager": (Case("llama", {}, "eager"), "sdpa, which computes the same"),
}  # fmt: skip


def small(case: Case, **changes: Any) -> Any:
    """A small model of a case."""
    return tiny(case.family, attention=case.attention, **{**case.settings, **changes})


def configuration(case: Case) -> Any:
    """The configuration of a case at its published sizes, without weights."""
    config = CONFIG_MAPPING[case.family](**case.settings)
    config._attn_implementation = case.attention
    return config


def error(case: Case) -> float:
    """How far the packed gradient is from the padded one, relative to the latter's norm."""
    model, batch = small(case), rows(BATCHES["groups of one size"])
    padded = gradient(model, trl_scores(model, batch))
    assert install(model) is None
    packed = gradient(model, row_scores(model, *batch, autocast=nullcontext, entropy=True))
    return float((packed - padded).norm() / padded.norm())


HEAD = """# Packed rows, model by model

By `python -m tests.packing.families > docs/packing.md`; the same table is a test. Small random models of the real
architectures in float32 on a CPU, windows of 4 tokens, rows of up to 20: the norm of what the packed gradient differs
by from that of TRL's padded rows, over the latter's norm. On a GPU nothing of this has been measured.

A mixture of experts packs with `router_aux_loss_coef: 0`; its own coefficient, which TRL takes by default, keeps rows
padded: the router loss averages over the tokens of whole rows, a shared prompt once a row. Of Gemma 2, transformers'
`sdpa` leaves the soft cap of its scores out, padded or packed; `attn_implementation: eager` has it, and packs too. A
window that cuts rows, sinks and a soft cap have scores written out or masked in packed rows, as in padded ones.

| packed | relative error of the gradient |
|---|---|"""


def page() -> str:
    """docs/packing.md."""
    lines = [HEAD, *(f"| {name} | {error(case):.1e} |" for name, case in sorted(PACKED.items()))]
    lines += ["", "| padded | why, as a run says it |", "|---|---|"]
    for name, (case, _) in sorted(PADDED.items()):
        said = (supports(configuration(case)) or "").split("; packing has been checked")[0]
        lines.append(f"| {name} | {said} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
