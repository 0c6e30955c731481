"""CHORD: both losses in every step, SFT's weight mu by a schedule (arXiv 2508.11408).

    L = (1 - mu) * L_GRPO + mu * L_SFT

mu rises in a line from 0 to `mu_peak` over `mu_warmup_steps`, falls along half a cosine to `mu_valley` over
`mu_decay_steps`, and stays there. The defaults are the paper's CHORD-mu: 0.9 to 0.05 over 200 steps. CHORD-phi is a
constant mu with CHORD's token weight: `{name: chord, mu_peak: 0.1, mu_valley: 0.1}` with `hybrid.sft_weight: phi`.

`tau` is the paper's adaptive variant in place of the schedule: mu = max(0, tau - r), r the mean reward of the last step
that sampled, 0 before the first; 0.5 works there, 0.7 does not. It is meant for rewards in [0, 1].

What differs from the authors' code:

- Each loss is divided by its own token count over the whole step; there the SFT term is a mean over the tokens of a
  micro-batch times its rows, so that the same step has another gradient in other micro-batches.
- With `tau`, mu is held at 0.95 where rewards are negative: at 1 nothing would be sampled, and the reward could never
  be seen to rise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from posttrain.controllers.base import Mix, Mode, Signals, State, Stateless, clock, mix_from_share
from posttrain.controllers.sasr import GUARD_CEILING
from posttrain.errors import ConfigError

Mu = Annotated[float, Field(ge=0, le=1)]
Steps = Annotated[int, Field(ge=0)]


def mu_at(step: float, *, warmup: int, decay: int, peak: float, valley: float) -> float:
    """A line from 0 to `peak` over `warmup` steps, half a cosine to `valley` over `decay`, and `valley` from there."""
    if step < warmup:
        return peak * step / warmup
    if step >= warmup + decay:
        return valley
    return valley + (peak - valley) * 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / decay))


@dataclass(frozen=True, kw_only=True)
class Chord(Stateless):
    """Blend SFT and GRPO with a weight that falls on a schedule (see the module's docstring).

    Args:
        mu_peak: Weight of SFT at the end of its rise.
        mu_valley: Weight of SFT in the end.
        mu_warmup_steps: Steps over which it rises from 0.
        mu_decay_steps: Steps over which it then falls.
        tau: The mean reward from which on SFT has no weight, in place of the schedule.

    Raises:
        ConfigError: `tau` beside a schedule.
    """

    name: Literal["chord"] = "chord"
    mu_peak: Mu = 0.9
    mu_valley: Mu = 0.05
    mu_warmup_steps: Steps = 0
    mu_decay_steps: Steps = 200
    tau: Annotated[float, Field(gt=0, lt=1)] | None = None
    mode: ClassVar[Mode] = "blend"
    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for name in ("mu_peak", "mu_valley", "mu_warmup_steps", "mu_decay_steps"):
            if self.tau is not None and getattr(self, name) != getattr(type(self), name):
                raise ConfigError(
                    f"tau: {self.tau:g} and {name}: {getattr(self, name)}",
                    expected="one of the two: tau lets the reward decide in place of the schedule",
                    where="tau",
                    fix=f"leave tau or {name} out",
                )

    @property
    def adaptive(self) -> bool:
        """Whether the reward decides."""
        return self.tau is not None

    @property
    def uses(self) -> tuple[str, ...]:
        """The signals that decide."""
        return ("reward",) if self.adaptive else ()

    def least(self, total_steps: int) -> tuple[int, int]:
        """Steps that at the least have an (SFT, GRPO) half under `tau`."""
        return 0, total_steps

    def start(self, *, total_steps: int, seed: int, g_warmup: float | None = None) -> State:
        """The state before the first step; with `tau`, no reward was seen yet."""
        state = super().start(total_steps=total_steps, seed=seed)
        return {**state, "reward": None} if self.adaptive else state

    def decide(self, state: State) -> Mix:
        """Both losses, or one where mu is 0 or 1."""
        if self.tau is None:
            mu = self.mu(clock(state))
            return mix_from_share(state, mu, "blend", why=f"mu={mu:.3f} by the schedule")
        reward = state["reward"] or 0.0
        mu = min(max(0.0, self.tau - reward), GUARD_CEILING)
        return mix_from_share(state, mu, "blend", why=f"mu={mu:.3f}: reward {reward:.3f}, tau {self.tau:g}")

    def mu(self, step: float) -> float:
        """The schedule's weight of SFT at a step, from 0."""
        return mu_at(
            step,
            warmup=self.mu_warmup_steps,
            decay=self.mu_decay_steps,
            peak=self.mu_peak,
            valley=self.mu_valley,
        )

    def observe(self, state: State, signals: Signals) -> State:
        """Advance the clock, and with `tau` keep the newest reward."""
        after = super().observe(state, signals)
        if self.adaptive and signals.reward is not None and math.isfinite(signals.reward):
            after["reward"] = signals.reward
        return after

    def shares(self) -> tuple[bool, bool]:
        """Whichever loss has a weight somewhere on the way."""
        if self.adaptive:
            return True, True
        ends = [self.mu_valley, *([self.mu_peak] if self.mu_decay_steps else []), *([0.0] * bool(self.mu_warmup_steps))]
        return max(ends) > 0, min(ends) < 1
