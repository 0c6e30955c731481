"""How often a group of completions teaches nothing, and at which KL a guard takes over. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from posttrain.controllers.sasr import GUARD_CEILING

MOST_DEAD = 0.5
"""Share of groups without a difference in reward, from which half of what is sampled teaches nothing."""


def dead_share(rate: float, group: int) -> float:
    """The chance that all completions of a group pass, or none: `rate` ** G + (1 - rate) ** G."""
    return rate**group + (1.0 - rate) ** group


def least_rate(group: int, dead: float = MOST_DEAD) -> float | None:
    """The smallest solve rate at which no more than that share of groups is without signal; None: there is none."""
    low, high = 0.0, 0.5
    if dead_share(high, group) > dead:
        return None
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if dead_share(middle, group) > dead else (low, middle)
    return high


def group_for(rates: Sequence[float], dead: float = MOST_DEAD, most: int = 64) -> int | None:
    """The smallest group with which no more than that share is without signal; None: none up to `most`."""
    return next((size for size in range(2, most + 1) if fmean(dead_share(q, size) for q in rates) <= dead), None)


def kl_at_ceiling(target: float, kappa: float, p: float) -> float:
    """The KL at which SASR's guard is at its ceiling: logit(p) + kappa * (KL / target - 1) = logit(ceiling)."""
    if kappa == 0:
        return math.inf
    p = min(max(p, 1e-3), 0.999)
    pull = math.log(GUARD_CEILING / (1 - GUARD_CEILING)) - math.log(p / (1 - p))
    return target * (1 + max(0.0, pull) / kappa)
