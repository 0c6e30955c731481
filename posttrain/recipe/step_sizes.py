"""Whether two settings of the batch sizes take the same steps, so that a run can go on under the other.

A step takes per_device_train_batch_size x gradient_accumulation_steps rows a process. How it is cut into micro-batches
decides how much memory it needs, and nothing else as long as the product stays. Importing this loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from posttrain.recipe.arithmetic import demonstration_batch_size

Sizes = tuple[int, ...]


def same_size_keys(was: Mapping[str, Any], now: Mapping[str, Any]) -> set[str]:
    """The dotted keys of two flattened recipes in which they may differ because their steps are the same.

    They are those of a stage's micro-batches, where each step of the stage takes as many rows of each kind, and each
    generation samples as many completions.
    """
    keys: set[str] = set()
    try:
        if _warmup(was) == _warmup(now):
            keys |= {f"warmup.{name}" for name in ("per_device_train_batch_size", "gradient_accumulation_steps")}
        if _hybrid(was) == _hybrid(now) and not (_by_micro_batch(was) or _by_micro_batch(now)):
            keys |= {
                f"hybrid.{name}"
                for name in (
                    "per_device_train_batch_size", "gradient_accumulation_steps", "demonstration_batch_size",
                    "grpo.steps_per_generation",
                )
            }  # fmt: skip
    except (KeyError, TypeError):  # not a whole recipe, as a test's may be
        return set()
    return keys


def _warmup(recipe: Mapping[str, Any]) -> Sizes:
    return (recipe["warmup.per_device_train_batch_size"] * recipe["warmup.gradient_accumulation_steps"],)


def _hybrid(recipe: Mapping[str, Any]) -> Sizes:
    """Completions a step and a generation, and demonstrations a step; of one process."""
    size, count = recipe["hybrid.per_device_train_batch_size"], recipe["hybrid.gradient_accumulation_steps"]
    demonstrations: Any = SimpleNamespace(
        warmup=_section(recipe, "warmup", "steps", "per_device_train_batch_size", "gradient_accumulation_steps"),
        hybrid=_section(
            recipe, "hybrid", "per_device_train_batch_size", "gradient_accumulation_steps", "demonstration_batch_size"
        ),
    )
    window = recipe["hybrid.grpo.steps_per_generation"] or count
    return size * count, size * window, demonstration_batch_size(demonstrations) * count


def _by_micro_batch(recipe: Mapping[str, Any]) -> bool:
    """Whether the loss takes a mean or a quantile over each micro-batch by itself, so that its size matters."""
    return (
        recipe["hybrid.grpo.loss_type"] == "bnpo"
        or recipe["hybrid.grpo.top_entropy_quantile"] < 1
        or recipe["hybrid.grpo.entropy_coef"] != 0
    )


def _section(recipe: Mapping[str, Any], name: str, *keys: str) -> SimpleNamespace:
    return SimpleNamespace(**{key: recipe[f"{name}.{key}"] for key in keys})
