"""What a window that a server samples ahead of training does not go with. Imports no torch."""

from __future__ import annotations

from typing import Any

from posttrain.errors import ConfigError
from posttrain.recipe.recipe import Recipe


def refused(
    *, corrects: bool, refill: Any, length_budget: Any, curriculum: Any, method: Any
) -> tuple[str, str, str] | None:
    """What is seen beside a window ahead that does not go with it, what is expected, and what to do; `None` without.

    Args:
        corrects: Whether TRL's `vllm_importance_sampling_correction` is on.
        refill, length_budget, curriculum, method: A run's, or `None`.
    """
    problems = [
        (
            not corrects,
            "without vllm_importance_sampling_correction, though rollouts are of a policy before this one",
            "the correction, which is TRL's default",
            "leave vllm_importance_sampling_correction out, or sample no window ahead",
        ),
        (
            bool(refill),
            "with refill, which samples for a window until it has groups enough",
            "one of the two",
            "leave one out",
        ),
        (
            bool(length_budget),
            "with length_budget, which falls between sampling and training",
            "one of the two",
            "leave one out",
        ),
        (
            curriculum is not None,
            "with a curriculum, whose place in its prompts a checkpoint would not know",
            "one of the two",
            "leave one out",
        ),
        (
            method is not None and method.begins_rollouts,
            f"with the method {method.name if method else ''}, which decides at a step how rollouts begin",
            "a method whose rollouts are the policy's alone",
            "leave one out",
        ),
    ]
    return next(((seen, expected, fix) for there, seen, expected, fix in problems if there), None)


def window_ahead(recipe: Recipe, num_processes: int) -> list[ConfigError]:
    """What a recipe's `rollout.ahead` does not go with."""
    hybrid = recipe.hybrid
    if not (recipe.rollout.ahead and hybrid.steps and hybrid.controller.shares()[1]):
        return []
    problem = refused(
        corrects=hybrid.args.get("vllm_importance_sampling_correction", True),
        refill=hybrid.refill,
        length_budget=hybrid.length_budget,
        curriculum=hybrid.curriculum,
        method=hybrid.method,
    )
    if problem is None:
        return []
    seen, expected, fix = problem
    where = recipe.where("rollout.ahead")
    return [ConfigError(f"{recipe.rollout.ahead}, {seen}", expected=expected, where=where, fix=fix)]
