"""A learning-rate schedule of the gradient norms that a run recorded (Defazio et al. 2023, arXiv 2310.07831).

The bound on what a convex problem's last iterate loses is least for eta_t in proportion to w_t * sum over p > t of w_p,
where w_t is the inverse square of the gradient's norm for SGD, and the inverse of its l1 norm for Adam. Where norms are
all alike that is the straight line to 0; where they fall early it has a warm-up, where they rise late a steep end.

Deviations: a run records l2 norms, before clipping, which stand for l1 norms in the weights for Adam: their curves are
alike as far as gradients keep their shape. Steps whose gradient is not finite or 0 (a GRPO step without a group that
has a spread) have no weight and are left out. The curve is thinned to a few points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posttrain.errors import ConfigError, DataError
from posttrain.rundir import reading as run_reading

POWERS = {"adam": 1, "sgd": 2}
"""Optimizer -> the power of a gradient's norm whose inverse is a step's weight."""
LEAST = 2
"""Steps with a norm, at the least."""


@dataclass(frozen=True)
class Refined:
    """A schedule of a run.

    Attributes:
        stage: Whose norms.
        points: Shares of the learning rate over the stage, the largest 1, the last 0.
        norms: How many steps it is of.
        left_out: How many had no norm to take.
    """

    stage: str
    points: list[float]
    norms: int
    left_out: int


def refined_of(path: str | Path, stage: str | None, *, optimizer: str, smooth: float, points: int) -> Refined:
    """The refined schedule of a run's stage.

    Args:
        path: The run's directory.
        stage: `warmup` or `hybrid`; None: the last that it has steps of.
        optimizer: One of `POWERS`.
        smooth: Width of the median filter, as a share of the steps; 0 for none.
        points: How many to give at most.

    Raises:
        ConfigError: No run, no steps of the stage, or a setting that is none.
        DataError: Too few steps with a norm.
    """
    if not 0 <= smooth < 1 or points < 2:
        where = "--points" if points < 2 else "--smooth"
        expected = "2 points or more" if points < 2 else "a share of the steps, 0 or more and below 1"
        raise ConfigError(f"{points if points < 2 else smooth:g}", expected=expected, where=where)
    layout = run_reading.open_run(path)
    lines = run_reading.steps(layout, stage)
    stage = stage or (lines[-1]["stage"] if lines else "hybrid")
    found = [line.get("grad_norm") for line in lines if line["stage"] == stage]
    norms = [float(norm) for norm in found if norm is not None and math.isfinite(norm) and norm > 0]
    if len(norms) < LEAST:
        raise DataError(
            f"{len(norms)} steps of the {stage} stage have a gradient norm",
            expected=f"{LEAST} or more",
            where=str(layout.steps_file),
            fix="a run that trained, or --stage " + ("hybrid" if stage == "warmup" else "warmup"),
        )
    curve = refine(smoothed(norms, smooth), POWERS[optimizer])
    return Refined(stage, thinned(curve, points), len(norms), len(found) - len(norms))


def refine(norms: Sequence[float], power: int) -> list[float]:
    """Shares of the learning rate, the largest 1, from the norm of each step: w_t * sum over p > t of w_p.

    Args:
        norms: (T,), above 0.
        power: w_t is the norm to minus this.
    """
    weights = np.asarray(norms, dtype=float) ** -power
    weights /= weights.max()
    after = np.append(np.cumsum(weights[::-1])[::-1][1:], 0.0)
    rates = weights * after
    return list(map(float, rates / rates.max()))


def smoothed(norms: Sequence[float], share: float) -> list[float]:
    """Medians over a window of this share of the steps, of odd width, the ends mirrored."""
    width = round(share * len(norms)) // 2 * 2 + 1
    padded = np.pad(np.asarray(norms, dtype=float), width // 2, mode="reflect")
    return list(map(float, np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=-1)))


def thinned(curve: Sequence[float], count: int) -> list[float]:
    """The curve at `count` places at most, the ends among them, by straight lines between its values; the largest 1."""
    count = min(count, len(curve))
    places = np.linspace(0, len(curve) - 1, count)
    values = np.interp(places, np.arange(len(curve)), curve)
    return [float(f"{value:.4g}") for value in values / values.max()]
