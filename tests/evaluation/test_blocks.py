"""Differences over seeds as blocks: against numbers by hand and known quantiles, and how often the truth is held."""

from __future__ import annotations

import math

import numpy as np
import pytest

from posttrain.errors import DataError
from posttrain.evaluation.blocks import against, t_quantile, t_tail
from posttrain.evaluation.statistics import holm


def test_students_t_is_that_of_the_tables():
    # Two-sided 5 % and 1 % points, as every textbook prints them
    assert [round(t_quantile(0.05, df), 3) for df in (1, 2, 10, 30)] == [12.706, 4.303, 2.228, 2.042]
    assert round(t_quantile(0.01, 5), 3) == 4.032
    assert round(t_quantile(0.05, math.inf), 3) == 1.960
    assert t_tail(0.0, 4) == 1.0
    assert t_tail(1.0, 1) == pytest.approx(0.5)  # of Cauchy's distribution


def seeds(*means: float, n: int = 10) -> list[np.ndarray]:
    """For each seed, n problems of which this share is passed."""
    return [np.array([1.0] * round(mean * n) + [0.0] * round(n - mean * n)) for mean in means]


def test_a_difference_by_hand():
    # Residuals of [[.2, .4], [.4, .8], [.6, .6]]: arms' means .3 .6 .6, seeds' .4 .6, grand .5
    scores = {"a": seeds(0.2, 0.4), "b": seeds(0.4, 0.8), "c": seeds(0.6, 0.6)}
    rest = np.array([[0.0, 0.0], [-0.1, 0.1], [0.1, -0.1]])
    error = math.sqrt(2 * (rest**2).sum() / 2 / 2)  # 2 degrees of freedom, 2 seeds
    found = against(scores, "a")
    assert [(each.arm, round(each.difference, 10), each.df) for each in found] == [("b", 0.3, 2), ("c", 0.3, 2)]
    assert [each.error for each in found] == pytest.approx([error, error])
    assert found[0].p == pytest.approx(t_tail(0.3 / error, 2))
    assert found[0].hi - found[0].lo == pytest.approx(2 * t_quantile(0.025, 2) * error)  # two comparisons


def test_an_error_is_never_less_than_what_the_problems_make():
    one = np.array([1.0, 0.0] * 50)
    two = np.roll(one, 1)  # every problem flips, and the means are the same: no residual is left
    (found,) = against({"a": [one, one], "b": [two, two]}, "a")
    assert found.error == pytest.approx(math.sqrt(2 * np.var(two - one, ddof=1) / 100) / 2)


def test_one_seed_leaves_the_problems_alone():
    one, two = np.array([1.0] * 30 + [0.0] * 70), np.array([1.0] * 45 + [0.0] * 55)
    (found,) = against({"a": [one], "b": [two]}, "a")
    assert (round(found.difference, 10), found.df) == (0.15, math.inf)
    assert found.error == pytest.approx(np.std(two - one, ddof=1) / 10)


@pytest.mark.parametrize("seed", range(5))
def test_an_interval_without_0_is_told_apart(seed):
    rng = np.random.default_rng(seed)
    scores = {f"arm{k}": [rng.random(40) < 0.4 + 0.07 * k for _ in range(3)] for k in range(7)}
    found = against({arm: [of.astype(float) for of in each] for arm, each in scores.items()}, "arm0")
    assert [each.p_holm for each in found] == holm([each.p for each in found])
    for each in found:
        assert each.p_holm < 0.05 or each.lo <= 0.0 <= each.hi
        assert (each.hi - each.lo) / 2 == pytest.approx(t_quantile(0.05 / 6, 12) * each.error)
    assert any(each.p_holm < 0.05 for each in found)


def test_all_intervals_hold_at_once_with_95_percent():
    # 12 arms of which some are far away: intervals at Holm's levels hold all at once in 91 % of these studies
    rng, effects = np.random.default_rng(1), np.repeat([0.0, 0.5, 2.0, 4.0], 3) / 10
    held, studies = 0, 400
    for _ in range(studies):
        means = effects[:, None] + rng.normal(0, 0.03, (12, 3)) + rng.normal(0, 0.1, 3)
        found = against({str(arm): [np.array([mean]) for mean in of] for arm, of in enumerate(means)}, "0")
        held += all(each.lo <= effects[int(each.arm)] <= each.hi for each in found)
    assert held / studies >= 0.95


def test_other_problems_are_refused():
    with pytest.raises(DataError, match="different seeds or numbers of problems"):
        against({"a": seeds(0.5, 0.5), "b": seeds(0.5)}, "a")


def simulated(rng: np.random.Generator, luck: float, effects: np.ndarray) -> dict[str, list[np.ndarray]]:
    """3 seeds of 400 problems: difficulties of the seed's own, an arm's effect, and its luck with the seed."""
    difficulty = rng.normal(0.5, 1.5, (3, 400))
    logits = difficulty + effects[:, None, None] + luck * rng.normal(size=(len(effects), 3, 1))
    passed = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)
    return {str(arm): list(of) for arm, of in enumerate(passed)}


@pytest.mark.parametrize(("luck", "least"), [(0.0, 0.95), (0.3, 0.93)])
def test_95_of_100_intervals_hold_the_truth_with_three_seeds(luck, least):
    rng, effects = np.random.default_rng(3), np.array([0.0, 0.0, 0.3, 0.3, 0.6, 0.0, -0.3, 0.3])
    wide = np.random.default_rng(4)
    logits = wide.normal(0.5, 1.5, 400_000) + luck * wide.normal(size=400_000)
    true = [float((1 / (1 + np.exp(-(logits + effect)))).mean()) for effect in effects]
    held, families, studies = 0, 0, 200
    for _ in range(studies):
        found = against(simulated(rng, luck, effects), "0")
        single = [abs(each.difference - (true[int(each.arm)] - true[0])) for each in found]
        held += sum(off <= t_quantile(0.05, each.df) * each.error for off, each in zip(single, found, strict=True))
        families += any(each.p_holm < 0.05 for each in found if true[int(each.arm)] == true[0])
    assert least <= held / (7 * studies) <= 0.99  # 97.7 and 94.7 % of 14,000 (see `evaluation.blocks`)
    assert families / studies <= 0.08  # one true zero or more called a difference: 5 % at the most, but for luck
