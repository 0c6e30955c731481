"""The learning rate over each stage, as its schedule will have it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from posttrain.recipe.rates import OWN, rate_of
from posttrain.recipe.recipe import Recipe
from posttrain.recipe.schedules import KWARGS
from posttrain.watching.sparkline import sparkline

PLACES = 48
"""Steps that a curve is shown by."""
STAGES = {"warmup": "warm-up", "hybrid": "hybrid"}


@dataclass(frozen=True)
class Curve:
    """A stage's learning rate.

    Attributes:
        name: The schedule.
        steps: Of the stage; under a budget those that its schedules are written for.
        at: Steps done before the ones that the rates are of.
        rates: At these.
        highest: Of all steps.
        last: Of the last step.
    """

    name: str
    steps: int
    at: list[int]
    rates: list[float]
    highest: float
    last: float


def curves(recipe: Recipe) -> dict[str, Curve]:
    """The learning rate of each stage that the recipe has."""
    found = {}
    for stage in STAGES:
        section = getattr(recipe, stage)
        if section.steps:
            rates = rates_of(section)
            count = min(len(rates), PLACES)
            at = sorted({place * (len(rates) - 1) // max(count - 1, 1) for place in range(count)})
            found[stage] = Curve(
                section.lr_scheduler_type, len(rates), at, [rates[place] for place in at], max(rates), rates[-1]
            )
    return found


def rates_of(section: Any) -> list[float]:
    """The learning rate of every step of a stage, by the very functions that train it."""
    kwargs: Mapping[str, Any] = section.args.get(KWARGS) or {}
    rate, steps, rise = section.learning_rate, section.steps, section.warmup_steps
    if section.lr_scheduler_type in OWN:
        share = rate_of(section.lr_scheduler_type, kwargs, learning_rate=rate, steps=steps, warmup_steps=rise)
    else:
        import torch
        from transformers import get_scheduler

        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
        schedule = get_scheduler(
            section.lr_scheduler_type, optimizer, num_warmup_steps=rise, num_training_steps=steps,
            scheduler_specific_kwargs=dict(kwargs),
        )  # fmt: skip
        (share,) = schedule.lr_lambdas
    return [rate * share(step) for step in range(steps)]


def rates_in_words(found: Mapping[str, Curve], *, budget: bool) -> Iterator[str]:
    """A line a stage, with its curve.

    Args:
        found: The curves by stage.
        budget: Whether the hybrid stage ends with one.
    """
    for stage, curve in found.items():
        over = f"{curve.steps:,} steps" + (", by the share of the budget" if budget and stage == "hybrid" else "")
        drawn = sparkline(curve.rates, PLACES, low=0.0)
        yield f"{STAGES[stage]}: {drawn} {curve.name} over {over}"
        yield f"  begins at {curve.rates[0]:.3g}, {curve.highest:.3g} at most, {curve.last:.3g} in the last step"
