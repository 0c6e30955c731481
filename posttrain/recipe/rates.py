"""Learning-rate schedules that transformers does not have, as pure functions over floats.

Each gives the share of `learning_rate` at a clock: the steps that are done, or, under a budget, its spent share times
`steps`. The first step is taken at the rate of clock 0, and at clock `steps` nothing is trained any more, as with
transformers' own. Before `warmup_steps` a rate rises in a straight line, as theirs do, to where the schedule is then.

- `wsd_s` (Wen et al. 2024, arXiv 2410.05192): cycles of a constant rate and a decay, in which 1 / rate changes in a
  straight line; each cycle goes on from what the decay before it left, at the full rate again, without a rise.
- `infinite` (Ibrahim et al. 2024, arXiv 2403.08763; Singh et al. 2025, arXiv 2503.02844): a cosine down to a constant
  rate, which may last for any length, then an exponential anneal. Only the anneal depends on where the stage ends.
- `power` (Shen et al. 2024, arXiv 2408.13359): batch_size * a * tokens^b, capped at `learning_rate`, then an
  exponential decay. Their constants were found under muP, on rates far above those of fine-tuning; `num_stable_steps`
  states the law by the step at which it falls below the cap instead (our addition).
- `refined` (Defazio et al. 2023, arXiv 2310.07831): a curve that `posttrain schedule` makes of the gradient norms of a
  finished run, its points spread evenly from clock 0 to `steps`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

Rate = Callable[[float], float]

POWER_A, POWER_B = 4.0, -0.51
"""The constants of the power law, for tokens and a batch in sequences."""
MIN_LR_RATIO = 0.1
CONSTANT_LR_RATIO = 0.5

OWN: dict[str, tuple[str, ...]] = {
    "wsd_s": ("cycles", "num_decay_steps", "min_lr_ratio"),
    "infinite": ("num_cooldown_steps", "constant_lr_ratio", "num_anneal_steps", "min_lr_ratio"),
    "power": (
        "num_stable_steps", "batch_size", "tokens_per_step", "a", "b", "num_decay_steps", "min_lr_ratio",
    ),
    "refined": ("points",),
}  # fmt: skip
"""Schedule -> its arguments."""

NO_WARMUP = ("constant", "refined", "reduce_lr_on_plateau", "greedy")
"""Schedules that pay no heed to `warmup_steps`: transformers' own, and the one whose curve has its own rise."""


def rate_of(name: str, kwargs: Mapping[str, Any], *, learning_rate: float, steps: int, warmup_steps: int) -> Rate:
    """The schedule as a function of the clock, which gives shares of `learning_rate`.

    Args:
        name: One of `OWN`.
        kwargs: Its arguments, which `schedules.check_schedule` has let through.
        learning_rate: The highest rate.
        steps: That the schedule is written for.
        warmup_steps: Over how many of them the rate rises.
    """
    given = {key: value for key, value in kwargs.items() if value is not None}
    low = float(given.get("min_lr_ratio", MIN_LR_RATIO))
    if name == "refined":
        return partial(refined, points=tuple(map(float, given["points"])), steps=steps)
    if name == "wsd_s":
        ends = cycle_ends(given.get("cycles", 1), steps)
        after = partial(wsd_s, ends=ends, decay=given["num_decay_steps"], low=low)
    elif name == "infinite":
        after = partial(
            infinite,
            start=warmup_steps,
            cooldown=given["num_cooldown_steps"],
            constant=float(given.get("constant_lr_ratio", CONSTANT_LR_RATIO)),
            anneal_at=steps - given.get("num_anneal_steps", 0),
            end=steps,
            low=low,
        )
    else:
        law = _law(given, learning_rate)
        after = partial(power, law=law, decay_at=steps - given.get("num_decay_steps", 0), end=steps, low=low)
    return partial(_risen, after=after, warmup_steps=warmup_steps)


def _risen(clock: float, *, after: Rate, warmup_steps: int) -> float:
    return after(warmup_steps) * clock / warmup_steps if clock < warmup_steps else after(clock)


def inverse_linear(share: float, low: float) -> float:
    """The rate at this share of a decay from 1 to `low`, whose inverse changes in a straight line."""
    return 1.0 / ((1.0 - share) + share / low)


def exponential(share: float, high: float, low: float) -> float:
    """The rate at this share of a decay from `high` to `low` by equal factors."""
    return high * (low / high) ** share


def cycle_ends(cycles: int | Sequence[int], steps: int) -> tuple[int, ...]:
    """Where the cycles of `wsd_s` end: so many of about equal length, or after these steps and at the stage's end."""
    if isinstance(cycles, int):
        return tuple(round(steps * number / cycles) for number in range(1, cycles + 1))
    return tuple(sorted({*cycles, steps}))


def wsd_s(clock: float, *, ends: Sequence[int], decay: float, low: float) -> float:
    """1 but for the last `decay` steps before each of `ends`, which lead down to `low`; behind the last, `low`."""
    end = next((each for each in ends if clock < each), None)
    if end is None:
        return low
    return 1.0 if clock <= end - decay else inverse_linear((clock - end + decay) / decay, low)


def infinite(
    clock: float, *, start: float, cooldown: float, constant: float, anneal_at: float, end: float, low: float
) -> float:
    """From 1 at `start` by half a cosine to `constant`, there until `anneal_at`, then by equal factors to `low`."""
    if clock < start + cooldown:
        return constant + (1.0 - constant) * 0.5 * (1.0 + math.cos(math.pi * (clock - start) / cooldown))
    if clock <= anneal_at or anneal_at == end:
        return constant
    return exponential(min((clock - anneal_at) / (end - anneal_at), 1.0), constant, low)


def power_law(tokens: float, *, a: float, b: float, batch_size: float, cap: float) -> float:
    """min(cap, batch_size * a * tokens^b), for b below 0."""
    return cap if tokens <= 0 else min(cap, batch_size * a * tokens**b)


def power(clock: float, *, law: Rate, decay_at: float, end: float, low: float) -> float:
    """A power law until `decay_at`, then by equal factors from what it was there to `low`."""
    if clock <= decay_at or decay_at == end:
        return law(clock)
    return exponential(min((clock - decay_at) / (end - decay_at), 1.0), law(decay_at), low)


def _law(given: Mapping[str, Any], learning_rate: float) -> Rate:
    """The power law as shares of `learning_rate`, by the clock."""
    b = float(given.get("b", POWER_B))
    if "num_stable_steps" in given:
        stable = float(given["num_stable_steps"])
        return partial(_by_tokens, per_step=1.0, a=stable**-b, b=b, batch_size=1.0, learning_rate=1.0)
    return partial(
        _by_tokens,
        per_step=float(given["tokens_per_step"]),
        a=float(given.get("a", POWER_A)),
        b=b,
        batch_size=float(given["batch_size"]),
        learning_rate=learning_rate,
    )


def _by_tokens(clock: float, *, per_step: float, a: float, b: float, batch_size: float, learning_rate: float) -> float:
    return power_law(clock * per_step, a=a, b=b, batch_size=batch_size, cap=learning_rate) / learning_rate


def refined(clock: float, *, points: Sequence[float], steps: int) -> float:
    """The curve through `points`, in straight lines between them; the first is at clock 0, the last at `steps`."""
    place = min(max(clock, 0.0), steps) * (len(points) - 1) / steps
    before = min(int(place), len(points) - 2)
    share = place - before
    return (1.0 - share) * points[before] + share * points[before + 1]
