"""The arguments of the schedules in `rates`, checked when a recipe is read. Importing this loads no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from posttrain.errors import ConfigError
from posttrain.recipe.rates import CONSTANT_LR_RATIO, MIN_LR_RATIO, POWER_B, cycle_ends, rate_of

WHERE = "lr_scheduler_type"
NO_FALL = 1
"""Steps of a decay in which no step's rate is lower."""
FIRST_IS_FULL = "the first step of a decay still has the rate before it, so that one of a single step has no effect"


def check_own(name: str, kwargs: Mapping[str, Any], *, learning_rate: float, steps: int, warmup_steps: int) -> None:
    """Refuse arguments that a schedule of ours cannot follow, or that would come to nothing.

    Args:
        name: One of `rates.OWN`.
        kwargs: Of its names only.
        learning_rate: The highest rate.
        steps: Of the stage.
        warmup_steps: Over how many of them the rate rises.

    Raises:
        ConfigError: With what to write.
    """
    given = {key: value for key, value in kwargs.items() if value is not None}
    for key, value in given.items():
        if key not in ("points", "cycles") and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise _refused(f"{key} {value!r}", "a number", f"{key}: 10")
    if name == "refined":
        _check_points(given.get("points"))
        return
    _check_low(given.get("min_lr_ratio", MIN_LR_RATIO))
    left = steps - warmup_steps
    if name == "wsd_s":
        _check_cycles(given, steps, warmup_steps)
    elif name == "infinite":
        _check_infinite(given, left)
    else:
        _check_power(given, learning_rate, steps, warmup_steps)


def _check_points(points: Any) -> None:
    numbers = isinstance(points, list | tuple) and all(
        isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each) and 0 <= each <= 1
        for each in points
    )
    if not numbers or len(points) < 2 or not max(points) > 0:
        raise ConfigError(
            "the schedule refined without points" if points is None else f"points {str(points)[:60]}",
            expected="two or more shares of learning_rate between 0 and 1, from the stage's beginning to its end",
            where=WHERE,
            fix="take them from a finished run: posttrain schedule RUN",
        )


def _check_low(low: float) -> None:
    if not 0 < low < 1:
        raise _refused(
            f"min_lr_ratio {low:g}", "a share of learning_rate above 0 and below 1, as the decay is by factors",
            f"min_lr_ratio: {MIN_LR_RATIO}",
        )  # fmt: skip


def _check_cycles(given: Mapping[str, Any], steps: int, warmup_steps: int) -> None:
    cycles, decay = given.get("cycles", 1), given.get("num_decay_steps")
    count = isinstance(cycles, int) and not isinstance(cycles, bool) and cycles >= 1
    places = isinstance(cycles, list | tuple) and all(
        isinstance(each, int) and not isinstance(each, bool) and warmup_steps < each <= steps for each in cycles
    )
    if not count and not places:
        raise _refused(
            f"cycles {cycles!r}", f"how many, or the steps that they end after, up to the stage's {steps}", "cycles: 2"
        )
    ends = (warmup_steps, *cycle_ends(cycles, steps))
    shortest = min(after - before for before, after in pairwise(ends))
    if decay is None or not NO_FALL < decay <= shortest:
        seen = "no num_decay_steps" if decay is None else f"num_decay_steps {decay:g}"
        seen += f": {FIRST_IS_FULL}" if decay is not None and 0 < decay <= NO_FALL else ""
        raise _refused(
            f"the schedule wsd_s with {seen}",
            f"over how many steps at the end of each cycle the rate falls, 2 or more and {max(shortest, 0)} at most: "
            "the shortest cycle, without the warm-up",
            f"num_decay_steps: {max(shortest // 5, 2)}" if shortest > NO_FALL else "cycles: 1",
        )


def _check_infinite(given: Mapping[str, Any], left: int) -> None:
    cooldown, anneal = given.get("num_cooldown_steps"), given.get("num_anneal_steps", 0)
    if cooldown is None or not (cooldown >= 0 and anneal >= 0 and cooldown + anneal <= left):  # NaN is neither
        seen = "no num_cooldown_steps" if cooldown is None else f"num_cooldown_steps {cooldown:g} and "
        seen += "" if cooldown is None else f"num_anneal_steps {anneal:g}"
        raise _refused(
            f"the schedule infinite with {seen}",
            f"steps in which the rate falls to its constant one, and from it at the end: {max(left, 0)} together at "
            "most, behind the warm-up",
            f"num_cooldown_steps: {max(left // 4, 1)}, num_anneal_steps: {left // 10}",
        )
    _check_falls("num_anneal_steps", anneal)
    constant, low = given.get("constant_lr_ratio", CONSTANT_LR_RATIO), given.get("min_lr_ratio", MIN_LR_RATIO)
    if not low < constant <= 1:
        raise _refused(
            f"constant_lr_ratio {constant:g}", f"a share of learning_rate above min_lr_ratio, {low:g}, and 1 at most",
            f"constant_lr_ratio: {CONSTANT_LR_RATIO}",
        )  # fmt: skip
    if "min_lr_ratio" in given and not anneal:
        raise _refused(
            f"min_lr_ratio {low:g} without num_anneal_steps: nothing falls to it", "both, or neither",
            "num_anneal_steps: 10",
        )  # fmt: skip


def _check_power(given: Mapping[str, Any], learning_rate: float, steps: int, warmup_steps: int) -> None:
    by_tokens, decay = ("batch_size", "tokens_per_step"), given.get("num_decay_steps", 0)
    named = [key for key in (*by_tokens, "a") if key in given]
    whole = not named if "num_stable_steps" in given else all(key in given for key in by_tokens)
    if not whole:
        raise _refused(
            f"the schedule power with {' and '.join([*named, *(['num_stable_steps'] * ('num_stable_steps' in given))])}"
            if given
            else "the schedule power without arguments",
            "num_stable_steps, where the law falls below learning_rate; or batch_size and tokens_per_step, by which "
            "it is batch_size * a * tokens^b",
            f"num_stable_steps: {max(steps // 4, 1)}",
        )
    if low := [key for key in ("num_stable_steps", *by_tokens, "a") if given.get(key, 1) <= 0]:
        raise _refused(f"{low[0]} {given[low[0]]:g}", "a number above 0", f"{low[0]}: 1")
    if not given.get("b", POWER_B) < 0:
        raise _refused(f"b {given['b']:g}", "a power below 0: the rate falls", f"b: {POWER_B}")
    if not 0 <= decay <= steps - warmup_steps:
        raise _refused(f"num_decay_steps {decay:g}", f"0 to {max(steps - warmup_steps, 0)}", "num_decay_steps: 10")
    _check_falls("num_decay_steps", decay)
    if "min_lr_ratio" in given and not decay:
        raise _refused("min_lr_ratio without num_decay_steps: nothing falls to it", "both, or neither",
                       "num_decay_steps: 10")  # fmt: skip
    rate = rate_of("power", given, learning_rate=learning_rate, steps=steps, warmup_steps=0)
    before = rate(steps - decay)
    if before >= 1:
        raise _refused(
            f"the schedule power, whose law lies above learning_rate {learning_rate:g} in every step before the decay: "
            "the rate would be constant",
            "a law that falls below it within the stage",
            f"num_stable_steps: {max(steps // 4, 1)}",
        )
    if decay and not given.get("min_lr_ratio", MIN_LR_RATIO) < before:
        raise _refused(
            f"min_lr_ratio {given.get('min_lr_ratio', MIN_LR_RATIO):g}, and the law has fallen to {before:.3g} of "
            "learning_rate before the decay",
            "a share below that", f"min_lr_ratio: {before / 10:.2g}",
        )  # fmt: skip


def _check_falls(key: str, steps: float) -> None:
    if 0 < steps <= NO_FALL:
        raise _refused(f"{key} {steps:g}: {FIRST_IS_FULL}", "2 or more, or 0", f"{key}: 2")


def _refused(seen: str, expected: str, example: str) -> ConfigError:
    fix = f"write args: {{lr_scheduler_kwargs: {{{example}}}}}"
    return ConfigError(seen, expected=expected, where=WHERE, fix=fix)
