"""The budget of ranks of a recipe's AdaLoRA adapter, stage by stage."""

from __future__ import annotations

from posttrain.recipe.recipe import Recipe
from posttrain.training.rank_budget import RankBudget
from posttrain.training.trainer import HybridTrainer


def rank_budget(recipe: Recipe, steps: int | None, trainer: HybridTrainer | None = None) -> list[RankBudget]:
    """What spends the budget over so many steps, or, without, keeps the ranks that are left; none for other adapters.

    Args:
        recipe: The recipe.
        steps: Of the stage, where it is the first one that trains.
        trainer: Of the hybrid stage, whose clock counts where it has a budget.
    """
    lora = recipe.lora
    if lora is None or lora.kind != "adalora":
        return []
    clock = trainer.clock_at if trainer is not None and trainer.budget is not None else None
    return [RankBudget(steps, orth_reg_weight=lora.args.get("orth_reg_weight", 0.5), clock=clock)]
