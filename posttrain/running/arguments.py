"""The trainers' arguments of the two stages, from a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from posttrain.recipe.arithmetic import demonstration_batch_size
from posttrain.recipe.recipe import Recipe
from posttrain.training.config import HybridConfig
from posttrain.training.warmup import WarmupConfig


def warmup_arguments(recipe: Recipe, folder: Path, *, on_gpu: bool) -> WarmupConfig:
    """Those of the warm-up, whose checkpoints go to `folder`."""
    return WarmupConfig(**_common(recipe, folder, on_gpu), **{**_defaults(on_gpu), **recipe.warmup.trl_kwargs()})


def hybrid_arguments(recipe: Recipe, folder: Path, reward_weights: Sequence[float], *, on_gpu: bool) -> HybridConfig:
    """Those of the hybrid stage, whose checkpoints go to `folder`."""
    section = recipe.hybrid
    return HybridConfig(
        **_common(recipe, folder, on_gpu),
        **{**_defaults(on_gpu), "logging_steps": recipe.run.log_every, **section.trl_kwargs()},
        **recipe.rollout.trl_kwargs(),
        budget=section.budget.given() if section.budget else None,
        reward_weights=list(reward_weights),
        demonstration_batch_size=demonstration_batch_size(recipe),
        kl_sample=section.kl.sample,
        max_skipped_steps=section.max_skipped_steps,
        packed=section.packed,
        drop_zero_advantage=section.drop_zero_advantage,
        refill=section.refill.model_dump() if section.refill else None,
        tokens=section.tokens.model_dump() if section.tokens else None,
        length_budget=section.length_budget.model_dump() if section.length_budget else None,
        migu=section.migu,
        sft_weight=section.sft_weight,
        sft_window=section.sft_window,
        sft_tries=section.sft_tries,
        kl_offload=section.kl.offload,
        score_ahead=recipe.scoring.ahead,
        completions_every=recipe.run.save_completions_every,
        compare_ranks_every=recipe.run.compare_ranks_every,
    )


def _common(recipe: Recipe, folder: Path, on_gpu: bool) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "seed": recipe.run.seed,
        "report_to": [],  # the run has trackers of its own, which go through both stages
        "disable_tqdm": True,
        "use_cpu": not on_gpu,
        "trust_remote_code": recipe.model.trust_remote_code,
    }


def _defaults(on_gpu: bool) -> dict[str, Any]:
    """Where TRL's defaults suit a GPU only; a recipe's `args` override them."""
    unused = {"ddp_find_unused_parameters": False}  # what trains is used in every step; to look costs time
    return unused if on_gpu else {**unused, "bf16": False, "gradient_checkpointing": False}
