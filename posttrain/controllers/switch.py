"""SFT, then GRPO: the reference that a mix of both has to beat.

With a repaired SFT baseline this sequence is reported above the published numbers of several mixes (arXiv 2604.23747).
The switch comes

- `at: 40`: after so many steps,
- `at: 0.5`: after that share of the stage's steps, or
- `at: flat`: when the SFT loss has flattened. The mean NLL of the last `window` SFT steps is compared with that of the
  `window` before: when it is lower by less than `tolerance` of it, the next step is GRPO, and all after it. The first
  comparison is after 2 * `window` steps. It is the training curve: a held-out one is not among a controller's signals,
  and SFT steps sample nothing that could be rewarded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from posttrain.controllers.base import Mix, Signals, State, Stateless, clock
from posttrain.errors import ConfigError

FLAT = "flat"


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("steps, a share or flat")
    return value


@dataclass(frozen=True, kw_only=True)
class Switch(Stateless):
    """SFT until a step, a share of the stage or a flat loss; then GRPO (see the module's docstring).

    Args:
        at: Steps (a whole number), a share of the stage (below 1), or `flat`.
        window: Of `flat`: SFT steps that a mean is over.
        tolerance: Of `flat`: relative fall of the mean loss from one window to the next, below which it is flat.

    Raises:
        ConfigError: `at` is none of these, or something is set that it has no use for.
    """

    name: Literal["switch"] = "switch"
    at: Annotated[int | float | str, BeforeValidator(_no_bool)] = 0.5
    window: Annotated[int, Field(ge=1)] = 10
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.02
    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        share = isinstance(self.at, float) and 0.0 < self.at < 1.0
        steps = isinstance(self.at, int) and not isinstance(self.at, bool) and self.at >= 1
        if not (share or steps or self.at == FLAT):
            raise ConfigError(
                f"{self.at!r}",
                expected="steps (1 or more), a share of the stage (above 0, below 1) or flat",
                where="at",
                fix="sft_only and grpo_only are the controllers without a switch" if self.at in (0, 1.0) else None,
            )
        for name in ("window", "tolerance"):
            if self.at != FLAT and getattr(self, name) != getattr(type(self), name):
                raise ConfigError(
                    f"{getattr(self, name)}, but the switch is at {self.at}",
                    expected="at: flat, which alone looks at the loss",
                    where=name,
                    fix="leave it out, or set at to flat",
                )

    @property
    def adaptive(self) -> bool:
        """Whether the loss decides."""
        return self.at == FLAT

    @property
    def uses(self) -> tuple[str, ...]:
        """The signals that decide."""
        return ("sft_loss",) if self.adaptive else ()

    def least(self, total_steps: int) -> tuple[int, int]:
        """Steps that are at the least (SFT, GRPO) under `flat`."""
        return min(2 * self.window, total_steps), 0

    def check_stage(self, total_steps: int) -> None:
        """Refuse a stage of so many steps that ends before the switch.

        Raises:
            ConfigError: It does.
        """
        first = 2 * self.window if self.adaptive else self.last_sft_step(total_steps)
        if first >= total_steps:
            raise ConfigError(
                f"no switch before step {first}, in a stage of {total_steps} steps",
                expected=f"less than {total_steps}" + (" for twice the window" if self.adaptive else ""),
                where="window" if self.adaptive else "at",
                fix="set it lower, or take sft_only",
            )

    def start(self, *, total_steps: int, seed: int, g_warmup: float | None = None) -> State:
        """The state before the first step; under `flat` with the losses that are compared."""
        more: State = {"losses": [], "means": None, "switched_after": None} if self.adaptive else {}
        return {**super().start(total_steps=total_steps, seed=seed), **more}

    def last_sft_step(self, total_steps: int) -> int:
        """The last step that is SFT, from 1, where a number says it."""
        if isinstance(self.at, float):
            return max(1, round(self.at * total_steps))
        assert isinstance(self.at, int)
        return self.at

    def decide(self, state: State) -> Mix:
        """SFT before the switch, GRPO behind it."""
        after = state["switched_after"] if self.adaptive else self.last_sft_step(state["total_steps"])
        if after is None:
            return Mix(1.0, 0.0, p=1.0, reason=f"SFT: its loss is not flat yet{_fall(state['means'])}")
        by_share = isinstance(self.at, float) and "clock" in state
        if by_share and clock(state) < after:
            done = clock(state) / state["total_steps"]
            return Mix(1.0, 0.0, p=1.0, reason=f"SFT, {done:.1%} of the budget spent, until {self.at:.0%}")
        if by_share:
            return Mix(0.0, 1.0, p=0.0, reason=f"GRPO: SFT ended with {self.at:.0%} of the budget")
        if state["step"] < after:
            return Mix(1.0, 0.0, p=1.0, reason=f"SFT, step {state['step'] + 1} of {after}")
        why = f", its loss flat{_fall(state['means'])}" if self.adaptive else ""
        return Mix(0.0, 1.0, p=0.0, reason=f"GRPO: SFT ended with step {after}{why}")

    def observe(self, state: State, signals: Signals) -> State:
        """Advance the clock; under `flat`, look at the loss, unless it is not finite."""
        after = super().observe(state, signals)
        loss = signals.sft_loss
        if not self.adaptive or state["switched_after"] is not None or loss is None or not math.isfinite(loss):
            return after
        losses = [*state["losses"], loss][-2 * self.window :]
        after["losses"] = losses
        if len(losses) < 2 * self.window:
            return after
        before, now = fmean(losses[: self.window]), fmean(losses[self.window :])
        after["means"] = [before, now]
        if before - now < self.tolerance * before:
            after |= {"switched_after": after["step"], "losses": []}
        return after

    def shares(self) -> tuple[bool, bool]:
        """Both."""
        return True, True


def _fall(means: list[float] | None) -> str:
    return f" (mean {means[0]:.4g}, then {means[1]:.4g})" if means else ""
