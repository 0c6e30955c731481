"""Optimizers that a hybrid run cannot train with. Importing this loads no torch."""

from __future__ import annotations

from typing import Any

from posttrain.errors import ConfigError

TWO_POINTS = "schedule_free"
"""How transformers' names of optimizers begin that keep two sets of weights: those that gradients are taken at, and
their average, which is the model (Defazio et al. 2024, arXiv 2405.15682)."""

FIX = "set optim: adamw_torch, with lr_scheduler_type: constant_with_warmup if no schedule is wanted"


def check_optim(optim: Any, where: str) -> None:
    """Refuse optimizers whose model is the average of the weights that train.

    Every place that looks at the policy would have to exchange the two, and rollouts could not be right: what is
    sampled by one set of weights would be trained at the other, while GRPO takes the two for one policy.

    Args:
        optim: As in `transformers.TrainingArguments`.
        where: The key.

    Raises:
        ConfigError: With what to set instead.
    """
    name = str(getattr(optim, "value", optim) or "")
    if name.startswith(TWO_POINTS):
        raise _refused(name, where)


def check_given(optimizer: Any, where: str) -> None:
    """As `check_optim`, of an optimizer that was made already: one with `train` and `eval`, as a model has them."""
    if all(callable(getattr(optimizer, name, None)) for name in ("train", "eval")):
        raise _refused(type(optimizer).__name__, where)


def _refused(name: str, where: str) -> ConfigError:
    return ConfigError(
        f"{name}, which trains at other weights than the averaged ones that are its model: rollouts would be of "
        "another policy than the one that is trained, and evaluations and saved models of weights that are no model",
        expected="an optimizer whose weights are the policy's",
        where=where,
        fix=FIX,
    )
