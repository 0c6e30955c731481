"""SASR: step-wise adaptive SFT and GRPO (arXiv 2505.13026).

After the warm-up, each optimizer step is SFT with probability

    p = G_last / (G_last + gamma * G_warmup)

and GRPO otherwise. G_warmup is the norm of the SFT gradient at the end of the warm-up, G_last that of the last SFT
gradient since; before the first, G_last = G_warmup. As L_SFT is KL(data || policy) plus a constant, its gradient is
the gradient of that divergence: far from the demonstrations the norm is large and SFT is drawn more often.

What this module adds to the paper, each off unless asked for:

- `mode="blend"`: both losses in every step, weights p and 1 - p, instead of a draw. `match_norms` makes p the share
  of the SFT gradient in the update, for SFT norms are often an order of magnitude above GRPO norms.
- `kl_target`: the divergence of the policy from its warm-up snapshot, measured on the rollouts, guards the mix. Above
  the target, logit(p) grows by kappa * (KL / kl_target - 1). A guarded p stays at or below 0.95 (unless the norms
  alone put it higher), for the KL is only measured on GRPO steps: at p = 1 it could never be seen to fall again.
- `refresh_every`: G_last goes stale while p is small. After this many steps without an SFT gradient, one is measured
  on the next demonstrations without stepping on it.
- `g_warmup`: the warm-up norm by hand, for a policy that was warmed up elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from posttrain.controllers.base import Mix, Mode, Signals, State, mix_from_share, sigmoid
from posttrain.errors import ConfigError

GUARD_FLOOR, GUARD_CEILING = 1e-3, 0.95


@dataclass(frozen=True, kw_only=True)
class SASR:
    """Mix SFT and GRPO by the SFT gradient norm, guarded by KL (see the module's docstring).

    Args:
        gamma: Weight of G_warmup in p; larger means fewer SFT steps. At 1 the first step is SFT with p = 1/2.
        mode: `step` draws one loss per step (the paper); `blend` takes both.
        match_norms: In `blend`, make p the share of the SFT gradient's norm in the update.
        kl_target: KL (nats per token) above which p grows; `None` turns the guard off.
        kappa: Strength of the KL guard on logit(p).
        refresh_every: Steps without an SFT gradient after which one is measured; 0 never does (the paper).
        g_warmup: SFT gradient norm at the end of the warm-up; `None` takes the warm-up stage's.
    """

    name: Literal["sasr"] = "sasr"
    gamma: Annotated[float, Field(gt=0)] = 1.0
    mode: Mode = "step"
    match_norms: bool = False
    kl_target: Annotated[float, Field(gt=0)] | None = None
    kappa: Annotated[float, Field(ge=0)] = 1.0
    refresh_every: Annotated[int, Field(ge=0)] = 0
    g_warmup: Annotated[float, Field(gt=0)] | None = None

    __pydantic_config__ = {"extra": "forbid"}
    needs_g_warmup: ClassVar[bool] = True

    def start(self, *, total_steps: int, seed: int, g_warmup: float | None = None) -> State:
        """State with G_last = G_warmup.

        Raises:
            ConfigError: Neither the setting nor the argument gives a positive, finite G_warmup.
        """
        norm = self.g_warmup if self.g_warmup is not None else g_warmup
        if norm is None or not math.isfinite(norm) or norm <= 0:
            raise ConfigError(
                f"the SFT gradient norm at the end of the warm-up is {norm}",
                expected="a positive number: SASR weighs every later norm against it",
                where="controller.g_warmup",
                fix="warm up first (warmup.steps > 0), or give g_warmup by hand",
            )
        return {
            "step": 0,
            "seed": seed,
            "total_steps": total_steps,
            "g_warmup": float(norm),
            "g_last": float(norm),
            "measured_at": 0,
            "kl": None,
        }

    def decide(self, state: State) -> Mix:
        """The next step, from the norms and the KL seen so far."""
        p, why = self._probability(state)
        mix = mix_from_share(state, p, self.mode, match_norms=self.match_norms, why=why)
        stale = state["step"] - state["measured_at"]
        if mix.sft == 0.0 and self.refresh_every and stale >= self.refresh_every:
            return replace(mix, measure_sft=True, reason=f"{mix.reason}; G_last is {stale} steps old: measured again")
        return mix

    def observe(self, state: State, signals: Signals) -> State:
        """Keep the newest SFT norm and KL; a step that measured neither leaves them as they are."""
        after = {**state, "step": state["step"] + 1}
        if signals.sft_norm is not None and math.isfinite(signals.sft_norm):
            after |= {"g_last": signals.sft_norm, "measured_at": after["step"]}
        if signals.kl is not None and math.isfinite(signals.kl):
            after["kl"] = signals.kl
        return after

    def shares(self) -> tuple[bool, bool]:
        """Either loss can be drawn."""
        return True, True

    def _probability(self, state: State) -> tuple[float, str]:
        g_last, g_warmup, kl = state["g_last"], state["g_warmup"], state["kl"]
        p = g_last / (g_last + self.gamma * g_warmup)
        why = f"G_last={g_last:.4g}, G_warmup={g_warmup:.4g}"
        if self.kl_target is None or kl is None or kl <= self.kl_target or p >= GUARD_CEILING:
            return p, why
        p = max(p, GUARD_FLOOR)  # the logit of 0 is beyond any pull
        pull = self.kappa * (kl / self.kl_target - 1.0)
        guarded = min(sigmoid(math.log(p / (1.0 - p)) + pull), GUARD_CEILING)
        return guarded, f"{why}, KL={kl:.4g} above its target {self.kl_target:.4g}"
