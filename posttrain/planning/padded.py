"""Where a recipe's rows will be padded instead of packed, and why, asked of a model without weights."""

from __future__ import annotations

from typing import Any

from posttrain.recipe.recipe import Recipe


def padded_of(recipe: Recipe, model: Any) -> dict[str, str]:
    """Why rows are padded, by moment (warmup, sft, grpo); moments at which they are packed are not in it.

    Args:
        recipe: Says how its stages train.
        model: As it trains, on the `meta` device, in whatever attention; a recipe with `disable_dropout` leaves it
            without dropout.
    """
    from trl.trainer.utils import disable_dropout_in_model

    from posttrain.packing.scores import supports
    from posttrain.training.packable import router_loss, settings_against

    if recipe.model.attn_implementation:  # set, not asked for: what it needs may not be installed here
        model.config._attn_implementation = recipe.model.attn_implementation
    warmup, hybrid = recipe.warmup, recipe.hybrid
    padded: dict[str, str | None] = {}
    if warmup.steps:
        settings = {**warmup.trl_kwargs(), "packed": warmup.packed}
        padded["warmup"] = (
            router_loss(model.config, settings.get("router_aux_loss_coef"))
            or settings_against(settings, sft=True)
            or supports(model)
        )
    if hybrid.steps:
        settings = {**hybrid.trl_kwargs(), "packed": hybrid.packed}
        if settings.get("disable_dropout"):
            disable_dropout_in_model(model)
        reason = settings_against(settings, sft=False) or supports(model)
        sft_half, grpo_half = hybrid.controller.shares()
        if sft_half:
            padded["sft"] = reason
        if grpo_half:
            padded["grpo"] = reason or router_loss(model.config, settings.get("router_aux_loss_coef"))
    return {moment: why for moment, why in padded.items() if why}


def stages_in_words(padded: dict[str, str]) -> list[tuple[str, str]]:
    """(stage or half, why) for each reason, those of the hybrid stage together where they are one."""
    names = {"warmup": "warm-up", "sft": "SFT half", "grpo": "GRPO half"}
    told: dict[str, list[str]] = {}
    for moment, why in padded.items():
        told.setdefault(why, []).append(names[moment])
    return [(" and ".join([", ".join(of[:-1]), of[-1]] if len(of) > 1 else of), why) for why, of in told.items()]
