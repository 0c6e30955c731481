"""What evaluations are told by: unbiased pass@k, bootstrap intervals, paired differences and their p values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from posttrain.errors import ConfigError, DataError

if TYPE_CHECKING:
    pass


RESAMPLES_AT_ONCE = 4_000_000  # drawn problem indices held in memory, 32 MB


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that at least one of `k` samples passes, from `c` passes among `n` samples.

    1 - C(n - c, k) / C(n, k), without bias (arXiv 2107.03374, eq. 1), as a product so that nothing overflows.

    Raises:
        ConfigError: not 0 <= c <= n, or not 1 <= k <= n.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ConfigError(
            f"pass@{k} of {c} passes in {n} samples", expected="0 <= passes <= samples and 1 <= k <= samples"
        )
    if n - c < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1)))


def bootstrap_ci(
    values: Sequence[float] | np.ndarray, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean of `values`, one value a problem; of equal values without width.

    Raises:
        DataError: there are no values.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.size == 0:
        raise DataError("no values to draw an interval from", expected="one value per problem")
    rng = np.random.default_rng(seed)
    at_once = max(1, RESAMPLES_AT_ONCE // numbers.size)
    means = [
        numbers[rng.integers(numbers.size, size=(min(at_once, resamples - start), numbers.size))].mean(axis=1)
        for start in range(0, resamples, at_once)
    ]
    tail = (1 - confidence) / 2
    lo, hi = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(lo), float(hi)


def share_ci(values: Sequence[float] | np.ndarray, *, confidence: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """The interval of a mean of passes, or of chances to pass, one value from 0 to 1 a problem.

    It is `bootstrap_ci`, but where all of n values are 0 or all are 1, which no resampling can tell from a model that
    never fails or passes. Then it is Clopper and Pearson's (1934) exact one: 0 of n come to pass with a chance of
    (1 - p)^n, so that p is at most 1 - 0.025^(1/n); of n of n it is at least 0.025^(1/n). It holds for chances too:
    a mean of p needs values above 0 in a share of at least p.

    Raises:
        DataError: there are no values.
    """
    numbers = np.asarray(values, dtype=np.float64)
    end = ((1 - confidence) / 2) ** (1 / numbers.size) if numbers.size else 0.0
    if numbers.size and (numbers == 0.0).all():
        return 0.0, 1.0 - end
    if numbers.size and (numbers == 1.0).all():
        return end, 1.0
    return bootstrap_ci(numbers, confidence=confidence, seed=seed)


def paired_difference(
    before: Sequence[float],
    after: Sequence[float],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mean of `after` minus mean of `before` over the same problems, and its paired bootstrap interval.

    Problems are resampled with both their results, so that how hard they are cancels out: the interval is narrower
    than two separate ones suggest, and excludes 0 when the change is more than these problems' luck.

    Returns:
        (difference, lo, hi). Where no result differs there is nothing to resample: all three are 0, and lo to hi is no
        interval.

    Raises:
        DataError: the two don't hold the same number of problems, or none.
    """
    if len(before) != len(after):
        raise DataError(
            f"{len(before)} problems before and {len(after)} after", expected="the same problems, in the same order"
        )
    changes = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    lo, hi = bootstrap_ci(changes, confidence=confidence, resamples=resamples, seed=seed)
    return float(changes.mean()), lo, hi


def mcnemar(wins: int, regressions: int) -> float:
    """The exact two-sided McNemar test: how likely so uneven flips are if each is as likely to go either way."""
    flips = wins + regressions
    tail = sum(math.comb(flips, k) for k in range(min(wins, regressions) + 1))
    return min(1.0, 2 * tail / 2**flips)


def holm(p_values: Sequence[float]) -> list[float]:
    """The values adjusted for being several (Holm 1979): below 0.05 all true differences but by a chance of 5 %."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted
