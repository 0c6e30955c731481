"""The arguments of learning-rate schedules (`args.lr_scheduler_kwargs`), checked before there is an optimizer.

transformers looks at them when a stage begins, which for the hybrid stage is after the whole warm-up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posttrain.errors import ConfigError
from posttrain.nearest import did_you_mean
from posttrain.recipe.own_schedules import FIRST_IS_FULL, NO_FALL, check_own
from posttrain.recipe.rates import NO_WARMUP, OWN

WHERE, KWARGS = "lr_scheduler_type", "lr_scheduler_kwargs"
_MIN_LR = ("min_lr", "min_lr_rate")
TAKES: dict[str, tuple[str, ...]] = {
    "linear": (),
    "constant": (),
    "constant_with_warmup": (),
    "cosine": ("num_cycles",),
    "cosine_with_restarts": ("num_cycles",),
    "polynomial": ("lr_end", "power"),
    "inverse_sqrt": ("timescale",),
    "cosine_with_min_lr": ("num_cycles", *_MIN_LR),
    "cosine_warmup_with_min_lr": ("num_cycles", *_MIN_LR, "warmup_lr_rate"),
    "warmup_stable_decay": (
        "num_decay_steps", "num_stable_steps", "warmup_type", "decay_type", "min_lr_ratio", "num_cycles",
    ),
    **OWN,
}  # fmt: skip
"""Schedule -> the arguments that its function in `transformers.optimization` has beside those that a stage gives, or
those that our own take (`rates`)."""
SHAPES = ("linear", "cosine", "1-sqrt")
DEFAULT_LR_END = 1e-7


def check_schedule(name: str, given: Any, *, learning_rate: float, steps: int, warmup_steps: int) -> None:
    """Refuse a schedule that transformers would, or one whose arguments or warm-up it would pay no heed to.

    Args:
        name: One of `TAKES`.
        given: Its arguments.
        learning_rate: The highest.
        steps: Of the stage.
        warmup_steps: Over how many of them the rate rises.

    Raises:
        ConfigError: With what to set.
    """
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError(
            f"{KWARGS} {given!r}", expected="a mapping of names to values", where=WHERE, fix=_write("num_cycles: 0.5")
        )
    kwargs: Mapping[str, Any] = given or {}
    check_warmup(name, warmup_steps)
    for key in kwargs:
        if key not in TAKES[name]:
            takes = ", ".join(TAKES[name])
            fix = did_you_mean(str(key), TAKES[name]) or "leave it out, or name another lr_scheduler_type"
            seen = f"the schedule {name} takes no {key}"
            raise ConfigError(seen, expected=takes or "no arguments", where=WHERE, fix=fix)
        if name in OWN:
            continue
        kinds: tuple[type, ...] = (str,) if key.endswith("_type") else (int, float)
        if kwargs[key] is not None and (not isinstance(kwargs[key], kinds) or isinstance(kwargs[key], bool)):
            kind = "text" if str in kinds else "a number"
            raise ConfigError(f"{key} {kwargs[key]!r}", expected=kind, where=WHERE, fix=f"correct it in args.{KWARGS}")
    if name in OWN:
        check_own(name, kwargs, learning_rate=learning_rate, steps=steps, warmup_steps=warmup_steps)
    if "min_lr" in TAKES[name] and sum(kwargs.get(key) is not None for key in _MIN_LR) != 1:
        raise ConfigError(
            f"the schedule {name} with {_named(kwargs)}",
            expected="one of min_lr and min_lr_rate: where the rate ends, by itself or as a share of learning_rate",
            where=WHERE,
            fix=_write("min_lr_rate: 0.1"),
        )
    if name == "warmup_stable_decay":
        _check_decay(kwargs, steps, warmup_steps)
    lr_end = DEFAULT_LR_END if kwargs.get("lr_end") is None else kwargs["lr_end"]
    if name == "polynomial" and not lr_end < learning_rate:
        raise ConfigError(
            f"the schedule polynomial falls to lr_end {lr_end:g}",
            expected=f"less than learning_rate, {learning_rate:g}",
            where=WHERE,
            fix=_write("lr_end: 0.0"),
        )


def check_warmup(name: str, warmup_steps: float) -> None:
    """Refuse a warm-up that a schedule would ignore.

    Raises:
        ConfigError: With what to set instead.
    """
    if not warmup_steps or name not in NO_WARMUP:
        return
    why = "its curve has a rise of its own" if name in OWN else "transformers ignores them, from the first step on"
    raise ConfigError(
        f"the schedule {name} with warmup_steps {warmup_steps:g}: {why}",
        expected="a schedule that has a warm-up, or none",
        where=WHERE,
        fix="set warmup_steps: 0" + (", or constant_with_warmup" if name == "constant" else ""),
    )


def _check_decay(kwargs: Mapping[str, Any], steps: int, warmup_steps: int) -> None:
    decay, stable = kwargs.get("num_decay_steps"), kwargs.get("num_stable_steps")
    left = steps - warmup_steps - (stable or 0)
    if decay is None or not 0 <= decay <= left:
        seen = "no num_decay_steps" if decay is None else f"num_decay_steps {decay}"
        raise ConfigError(
            f"the schedule warmup_stable_decay with {seen}",
            expected=f"over how many of the stage's {steps} steps the rate falls at the end, {max(left, 0)} at most "
            "beside those that it rises and stays over",
            where=WHERE,
            fix=_write(f"num_decay_steps: {max(left, 0) // 5 or max(left, 0)}"),
        )
    if 0 < decay <= NO_FALL and (stable is None or decay == left):
        seen = f"the schedule warmup_stable_decay with num_decay_steps {decay}: {FIRST_IS_FULL}"
        raise ConfigError(seen, expected="2 or more", where=WHERE, fix=_write("num_decay_steps: 2"))
    for key in ("warmup_type", "decay_type"):
        if (kwargs.get(key) or "linear") not in SHAPES:
            seen = f"{key} {kwargs[key]!r}"
            raise ConfigError(seen, expected="one of " + ", ".join(SHAPES), where=WHERE, fix=_write(f"{key}: linear"))


def _named(kwargs: Mapping[str, Any]) -> str:
    return " and ".join(key for key in _MIN_LR if kwargs.get(key) is not None) or "neither min_lr nor min_lr_rate"


def _write(example: str) -> str:
    return f"write args: {{{KWARGS}: {{{example}}}}}"
