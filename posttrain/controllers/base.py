"""What a controller is: a pure decision over floats.

A controller never sees a tensor. Before each optimizer step the trainer asks `decide(state)` for a `Mix`; after
the step it calls `observe(state, signals)` and keeps the state that comes back. The state is a plain JSON dict,
so a run can be resumed from it, and replayed offline from `steps.jsonl` under other settings.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from posttrain.errors import ConfigError

State = dict[str, Any]
"""JSON state. Every controller keeps at least `step`, `seed` and `total_steps`; and `clock`, if it is given one."""

Mode = Literal["step", "blend"]


@dataclass(frozen=True, slots=True)
class Mix:
    """What one optimizer step is made of.

    Attributes:
        sft: Weight of the SFT loss; 0 draws no demonstrations.
        grpo: Weight of the GRPO loss; 0 generates nothing.
        match_norms: When both weights are positive, scale the SFT gradient so that `sft` is its share of the
            update's norm rather than the weight of its loss.
        measure_sft: Measure the SFT gradient norm without stepping on it (only where `sft` is 0).
        p: The probability or share the decision came from, for the log.
        reason: The decision in words, for the log.
    """

    sft: float
    grpo: float
    match_norms: bool = False
    measure_sft: bool = False
    p: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Signals:
    """What one optimizer step showed. Norms are L2 over all trainable parameters, before clipping.

    Attributes:
        sft_norm: Norm of the gradient of the SFT loss (weight 1 in the mix), if it was computed.
        grpo_norm: Norm of the gradient of the GRPO loss (weight 1), if it was computed.
        kl: Mean per-token KL estimate (nats) of the policy from the warm-up snapshot, if it was measured.
        reward: Mean total reward of the step's rollouts, if there were any.
        sft_loss: Mean NLL (nats) of the step's demonstration tokens, whatever their weights, if there were any.
        advantage_variance, nll_variance, coefficient_gap: Statistics of the step's rows (see `gac`), of a step with
            both losses and only where the controller has a true `needs_statistics`.
    """

    sft_norm: float | None = None
    grpo_norm: float | None = None
    kl: float | None = None
    reward: float | None = None
    sft_loss: float | None = None
    advantage_variance: float | None = None
    nll_variance: float | None = None
    coefficient_gap: float | None = None


class Controller(Protocol):
    """A policy for mixing the two losses. Implementations are frozen dataclasses of their settings."""

    @property
    def name(self) -> str:
        """What a recipe calls it."""
        ...

    needs_g_warmup: ClassVar[bool]
    """Whether `start` must be given the SFT gradient norm at the end of the warm-up."""

    def start(self, *, total_steps: int, seed: int, g_warmup: float | None = None) -> State:
        """The state before the first hybrid step."""
        ...

    def decide(self, state: State) -> Mix:
        """The mix of the next step; pure."""
        ...

    def observe(self, state: State, signals: Signals) -> State:
        """The state after a step that showed `signals`; pure."""
        ...

    def shares(self) -> tuple[bool, bool]:
        """Whether any step can have (SFT, GRPO)."""
        ...


def check_mix(mix: Mix, *, has_demonstrations: bool) -> None:
    """Refuse a mix that cannot be carried out as it reads.

    Raises:
        ConfigError: A weight outside [0, 1], none at all, one loss alone at another weight than 1, or SFT without
            demonstrations.
    """
    weights = (mix.sft, mix.grpo)
    alone = 0.0 in weights and sum(weights) != 1.0
    if not all(0.0 <= weight <= 1.0 for weight in weights) or alone:
        raise ConfigError(
            f"a controller decided {mix}",
            expected="weights in [0, 1]; a loss that stands alone has weight 1 (scale the learning rate instead)",
            where="Mix",
        )
    if (mix.sft > 0.0 or mix.measure_sft) and not has_demonstrations:
        raise ConfigError(
            f"a controller decided {mix}", expected="demonstrations to train on", where="Mix", fix="pass demonstrations"
        )


class Stateless:
    """Common half of the controllers that look only at the step number, and base of those that need no norm."""

    needs_g_warmup: ClassVar[bool] = False

    @property
    def adaptive(self) -> bool:
        """Whether decisions depend on what training shows."""
        return False

    def start(self, *, total_steps: int, seed: int, g_warmup: float | None = None) -> State:
        """The state before the first hybrid step: nothing but the clock."""
        return {"step": 0, "seed": seed, "total_steps": total_steps}

    def observe(self, state: State, signals: Signals) -> State:
        """Advance the clock; the signals are not used."""
        return {**state, "step": state["step"] + 1}


def adapts(controller: Controller) -> bool:
    """Whether a controller's decisions depend on what training shows, and not on the step's number alone."""
    return bool(getattr(controller, "adaptive", True))


def used(controller: Controller) -> frozenset[str]:
    """The signals that a controller's decisions come from; none where it does not say."""
    return frozenset(getattr(controller, "uses", ()))


def clock(state: State) -> float:
    """Where schedules stand, in steps of `total_steps`: the step's number.

    In a stage that ends with a budget it is the share of it that is spent, times `total_steps`; whoever carries out the
    steps keeps it in the state, as `clock`, before `observe`.
    """
    return float(state["clock"]) if "clock" in state else state["step"]


def at_clock(state: State, record: Mapping[str, Any]) -> State:
    """The state with the clock that a line of `steps.jsonl` has, if it has one."""
    recorded = record.get("controller")
    known = recorded.get("clock") if isinstance(recorded, Mapping) else None
    return state if known is None else {**state, "clock": known}


def draw(state: State) -> float:
    """A uniform number in [0, 1) that depends on (seed, step) only, so that every rank and every resume agrees."""
    return random.Random(f"{state['seed']}:{state['step']}").random()


def mix_from_share(state: State, p: float, mode: Mode, *, match_norms: bool = False, why: str) -> Mix:
    """Turn an SFT share `p` into a step: a draw of one loss (`step`) or both with weights p and 1 - p (`blend`)."""
    if mode == "blend":
        return Mix(p, 1.0 - p, match_norms and 0.0 < p < 1.0, p=p, reason=f"blend, {why}")
    u = draw(state)
    if u < p:
        return Mix(1.0, 0.0, p=p, reason=f"u={u:.3f} < p={p:.3f}: SFT ({why})")
    return Mix(0.0, 1.0, p=p, reason=f"u={u:.3f} >= p={p:.3f}: GRPO ({why})")


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), without overflow."""
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


def replay(controller: Controller, state: State, records: Iterable[Mapping[str, Any]]) -> list[Mix]:
    """Decisions that `controller` would have taken over recorded steps (lines of `steps.jsonl`).

    Give it the hybrid stage's lines only. The recorded signals are taken as they are: what a different decision would
    have changed in them is unknown.
    """
    mixes = []
    for record in records:
        mixes.append(controller.decide(state))
        signals = Signals(**{name: record.get(name) for name in Signals.__dataclass_fields__})
        state = controller.observe(at_clock(state, record), signals)
    return mixes
