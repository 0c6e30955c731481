"""When the tokens that GRPO trains, or a budget of them, would not be what a recipe says. Imports no torch."""

from __future__ import annotations

from typing import Any

from posttrain.errors import ConfigError
from posttrain.methods.base import LOSSES
from posttrain.recipe.recipe import Recipe


def refused(grpo: Any, *, controller: Any, method: str | None, band: bool) -> tuple[str, str] | None:
    """What is seen beside `tokens` that does not go with it, and what to do; `None` without.

    Args:
        grpo: Settings of GRPO by TRL's names, of a recipe or a trainer.
        controller: A `controllers.Controller`.
        method: The name of the run's method.
        band: Whether a band is asked for.
    """
    apart = {
        "the controller takes no GRPO step": (not controller.shares()[1], "leave tokens out"),
        f"the controller {controller.name}, which reads the size of a gradient off the advantages of all tokens": (
            getattr(controller, "needs_statistics", False),
            "take another controller, such as chord, or leave tokens out",
        ),
        f"the method {method}, which makes advantages of its own": (method is not None, "leave one of them out"),
        f"loss_type {grpo.loss_type}": (grpo.loss_type not in LOSSES, f"take one of {', '.join(LOSSES)}"),
        "importance_sampling_level sequence, under which every token has the gradient of its whole completion": (
            grpo.importance_sampling_level == "sequence",
            "set it to token",
        ),
        f"top_entropy_quantile {grpo.top_entropy_quantile:g}, another selection": (
            grpo.top_entropy_quantile < 1.0,
            "leave one of them out",
        ),
        f"entropy_coef {grpo.entropy_coef:g} and a band, two aims for the entropy": (
            band and grpo.entropy_coef != 0.0,
            "leave one of them out",
        ),
    }
    return next(((seen, fix) for seen, (there, fix) in apart.items() if there), None)


BUDGET = "token_budget"
"""The column of a row that says how many tokens its completion may take."""


def own_budget(columns: Any, where: str) -> ConfigError:
    """The error of data that has such a column already."""
    return ConfigError(
        f"the data has a column {BUDGET!r}, whose numbers the budget's would replace",
        expected=f"columns other than {BUDGET}: {', '.join(name for name in columns if name != BUDGET)}",
        where=where,
        fix="rename the column, or leave length_budget out",
    )


EXPECTED = (
    f"GRPO steps by themselves, loss_type {', '.join(LOSSES)} by token: only so each completion stands for itself"
)
"""What `tokens` goes with."""


def tokens(recipe: Recipe, num_processes: int) -> list[ConfigError]:
    """What a recipe's `hybrid.tokens` does not go with."""
    hybrid = recipe.hybrid
    if hybrid.tokens is None or not hybrid.steps:
        return []
    method = hybrid.method.name if hybrid.method else None
    band = hybrid.tokens.band is not None
    problem = refused(hybrid.grpo, controller=hybrid.controller, method=method, band=band)
    if problem is None:
        return []
    seen, fix = problem
    return [ConfigError(f"tokens, and {seen}", expected=EXPECTED, where=recipe.where("hybrid.tokens"), fix=fix)]


def length_budget(recipe: Recipe, num_processes: int) -> list[ConfigError]:
    """What a recipe's `hybrid.length_budget` does not go with."""
    hybrid, name = recipe.hybrid, "length_budget"
    if not hybrid.steps:
        return []
    paid = any(reward.name == name and reward.weight for reward in recipe.rewards)
    where = recipe.where(f"hybrid.{name}")
    if hybrid.length_budget is None:
        if not (paid and hybrid.controller.shares()[1]):  # what samples nothing pays nothing
            return []
        seen = f"the reward {name}, but no budget"
        return [ConfigError(seen, where=where, fix="add hybrid.length_budget: {start: 800, rate: 0.2}")]
    if hybrid.method is not None or not hybrid.controller.shares()[1]:
        seen = (
            f"a budget, and the method {hybrid.method.name}, whose demonstrations were told none"
            if hybrid.method
            else f"a budget, but the controller {hybrid.controller.name} samples nothing"
        )
        return [ConfigError(seen, expected="GRPO steps by themselves", where=where, fix="leave it out")]
    if not paid and all(reward.name for reward in recipe.rewards):  # a function of one's own may pay it
        seen = "a budget that no reward pays" + ("" if hybrid.length_budget.prompt else " and no prompt tells")
        return [
            ConfigError(seen, where=where, fix=f"add `- {{name: {name}, weight: 0.2}}` to rewards, beside the others")
        ]
    return []
