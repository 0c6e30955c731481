"""The weighted mean of a score's parts, which is 1 only where each of them is."""

from __future__ import annotations

from collections.abc import Mapping

from posttrain.errors import RewardError
from posttrain.nearest import hint

_NOT_A_PASS = 1 - 1e-6


def chosen_weights(given: Mapping[str, float] | None, usual: Mapping[str, float]) -> dict[str, float]:
    """The usual weights with some changed; parts of weight 0 are left out.

    Raises:
        RewardError: A part is unknown, a weight is no number from 0, or all are 0.
    """
    given = given or {}
    for name, weight in given.items():
        if name not in usual:
            seen = f"no part {name!r}{hint(name, usual)}"
            raise RewardError(seen, expected="one of " + ", ".join(usual), where="weights")
        if not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise RewardError(f"{name}: {weight!r}", expected="a number from 0", where="weights")
    weights = {name: weight for name, weight in {**usual, **given}.items() if weight > 0}
    if not weights:
        raise RewardError("every weight is 0", expected="at least one above 0", where="weights")
    return weights


def weighted_mean(parts: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """The weighted mean, exactly 1 when all parts are and clearly below 1 when one is not."""
    if all(part == 1 for part in parts.values()):
        return 1.0
    mean = sum(weights[name] * part for name, part in parts.items()) / sum(weights.values())
    return min(mean, _NOT_A_PASS)
