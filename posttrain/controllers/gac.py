"""GAC: both losses in every step, SFT's weight from the noise of the two (arXiv 2605.26184). Not reproduced.

    mu* = (alpha_static * D + S_r) / (D + S_s + S_r)

with, as the released controller estimates them from a step's rows:

- S_r: variance of the completions' advantages,
- S_s: variance of the demonstrations' mean NLL per token, without the tenth of them at either end,
- D: mean over all rows of the mean over a row's tokens of (g_s - g_r) ** 2, with g_s the token weight of
  `sft_weight` by the minus, -p * (1 - p) for `phi`, and g_r = -A in a completion, 0 in a demonstration.

Every `update_every` steps each goes into an exponential mean (`ema`). Before every step mu moves:

    adapted   = clip(ema * mu + (1 - ema) * mu*, mu_min, mu_max)
    candidate = (1 - blend_weight) * prior + blend_weight * adapted
    mu       <- clip(mu + clip(candidate - mu, -cap, cap), mu_min, mu_max)

where the prior is CHORD's schedule. Meant with `hybrid.sft_weight: phi`. For D every completion is trained on, also
those without an advantage (`drop_zero_advantage` has no effect).

*Why it is marked as not reproduced*: the training code and its settings are unpublished, and nobody else reports
numbers. With the released defaults mu comes to rest at 0.9901 * prior + 0.0099 * mu*: mu* = 0 instead of 1 changes mu
by a hundredth, so that it is the prior's cosine. To let the noise decide, set `ema` lower: with 0 mu comes to rest
between prior and mu*, at their mean.

What differs from the release: every statistic is over all processes, where there only S_r is and ranks can hold
different mu; mu moves once an optimizer step, not once a micro-batch; alpha is constant. The z-normalisation of the
README is not in the released code and not here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from posttrain.controllers.base import Mix, Mode, Signals, State, Stateless, clock, mix_from_share
from posttrain.controllers.chord import Mu, Steps, mu_at
from posttrain.errors import ConfigError

STATISTICS = {"advantage_variance": "sigma_r2", "nll_variance": "sigma_s2", "coefficient_gap": "delta_g2"}
"""Signals, and what the state calls their exponential means."""
TINY = 1e-8


@dataclass(frozen=True, kw_only=True)
class GAC(Stateless):
    """Blend SFT and GRPO by the noise of the two, around a schedule (see the module's docstring).

    Args:
        ema: What an exponential mean keeps of itself, and mu of its last value.
        alpha_static: Where between the two gradients the target lies; 1 is SFT's.
        mu_min, mu_max: Bounds of mu.
        init_mu: Before the first step.
        cap: Most that mu moves in a step.
        update_every: Steps between looks at the statistics.
        blend_weight: Of the adapted mu beside the prior.
        mu_peak, mu_valley, mu_warmup_steps, mu_decay_steps: The prior, as `chord`'s schedule.

    Raises:
        ConfigError: Bounds that leave nothing between them.
    """

    name: Literal["gac"] = "gac"
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.99
    alpha_static: Mu = 0.5
    mu_min: Annotated[float, Field(gt=0, lt=1)] = 0.05
    mu_max: Annotated[float, Field(gt=0, lt=1)] = 0.9
    init_mu: Mu = 0.5
    cap: Annotated[float, Field(gt=0)] = 0.01
    update_every: Annotated[int, Field(ge=1)] = 10
    blend_weight: Mu = 0.5
    mu_peak: Mu = 0.85
    mu_valley: Mu = 0.15
    mu_warmup_steps: Steps = 200
    mu_decay_steps: Steps = 800
    mode: ClassVar[Mode] = "blend"
    needs_statistics: ClassVar[bool] = True
    adaptive: ClassVar[bool] = True
    uses: ClassVar[tuple[str, ...]] = tuple(STATISTICS)
    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if not self.mu_min <= self.init_mu <= self.mu_max:
            raise ConfigError(
                f"{self.init_mu:g}, outside of mu_min {self.mu_min:g} to mu_max {self.mu_max:g}",
                expected="a weight between them",
                where="init_mu",
            )

    def least(self, total_steps: int) -> tuple[int, int]:
        """Steps that at the least have an (SFT, GRPO) half: all."""
        return total_steps, total_steps

    def start(self, *, total_steps: int, seed: int, g_warmup: float | None = None) -> State:
        """The state before the first step, which is taken at `init_mu`."""
        state = super().start(total_steps=total_steps, seed=seed)
        means: dict[str, Any] = dict.fromkeys(STATISTICS.values())
        return {**state, "mu": self.init_mu, **means, "looked_at": None}

    def decide(self, state: State) -> Mix:
        """Both losses with weights mu and 1 - mu."""
        mu = state["mu"]
        return mix_from_share(state, mu, "blend", why=f"mu={mu:.3f}, mu*={self.target(state):.3f}")

    def target(self, state: State) -> float:
        """mu*. Before statistics were seen D is 0 and both variances 1, as released."""
        gap = state["delta_g2"] or 0.0
        sft, grpo = (1.0 if state[name] is None else state[name] for name in ("sigma_s2", "sigma_r2"))
        return (self.alpha_static * gap + grpo) / (gap + sft + grpo + TINY)

    def prior(self, step: float) -> float:
        """The schedule's weight of SFT at a step, from 0."""
        peak, valley = self.mu_peak, self.mu_valley
        return mu_at(step, warmup=self.mu_warmup_steps, decay=self.mu_decay_steps, peak=peak, valley=valley)

    def observe(self, state: State, signals: Signals) -> State:
        """Look at the statistics if it is time to, and move mu."""
        after = super().observe(state, signals)
        seen = {name: getattr(signals, name) for name in STATISTICS}
        looked = state["looked_at"]
        due = looked is None or after["step"] - looked >= self.update_every
        if due and all(value is not None and math.isfinite(value) for value in seen.values()):
            for signal, name in STATISTICS.items():
                old = state[name]
                after[name] = seen[signal] if old is None else self.ema * old + (1.0 - self.ema) * seen[signal]
            after["looked_at"] = after["step"]
        after["mu"] = self._moved(after)
        return after

    def _moved(self, state: State) -> float:
        mu = state["mu"]
        adapted = self._bounded(self.ema * mu + (1.0 - self.ema) * self.target(state))
        candidate = (1.0 - self.blend_weight) * self.prior(clock(state)) + self.blend_weight * adapted
        return self._bounded(mu + min(max(candidate - mu, -self.cap), self.cap))

    def _bounded(self, mu: float) -> float:
        return min(max(mu, self.mu_min), self.mu_max)

    def shares(self) -> tuple[bool, bool]:
        """Both, in every step."""
        return True, True
