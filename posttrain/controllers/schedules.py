"""The baselines that an adaptive mix is judged against: fixed shares and schedules of the step number alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from posttrain.controllers.base import Mix, Mode, State, Stateless, clock, mix_from_share

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class SFTOnly(Stateless):
    """Every step is SFT: `SFTTrainer` by another name."""

    name: Literal["sft_only"] = "sft_only"
    __pydantic_config__ = {"extra": "forbid"}

    def decide(self, state: State) -> Mix:
        """SFT."""
        return Mix(1.0, 0.0, p=1.0, reason="SFT only")

    def shares(self) -> tuple[bool, bool]:
        """SFT, never GRPO."""
        return True, False


@dataclass(frozen=True, kw_only=True)
class GRPOOnly(Stateless):
    """Every step is GRPO: `GRPOTrainer` by another name."""

    name: Literal["grpo_only"] = "grpo_only"
    __pydantic_config__ = {"extra": "forbid"}

    def decide(self, state: State) -> Mix:
        """GRPO."""
        return Mix(0.0, 1.0, p=0.0, reason="GRPO only")

    def shares(self) -> tuple[bool, bool]:
        """GRPO, never SFT."""
        return False, True


@dataclass(frozen=True, kw_only=True)
class Static(Stateless):
    """A fixed SFT share.

    Args:
        sft_share: Probability of an SFT step (`step`), or weight of the SFT loss (`blend`).
        mode: `step` draws one loss per step; `blend` takes both.
        match_norms: In `blend`, make the share one of gradient norm rather than of loss.
    """

    sft_share: Share = 0.5
    name: Literal["static"] = "static"
    mode: Mode = "step"
    match_norms: bool = False
    __pydantic_config__ = {"extra": "forbid"}

    def decide(self, state: State) -> Mix:
        """A draw, or a blend, with the fixed share."""
        return mix_from_share(state, self.sft_share, self.mode, match_norms=self.match_norms, why="fixed share")

    def shares(self) -> tuple[bool, bool]:
        """Whichever loss has a positive share."""
        return self.sft_share > 0, self.sft_share < 1


@dataclass(frozen=True, kw_only=True)
class Alternate(Stateless):
    """`sft_steps` SFT steps, then `grpo_steps` GRPO steps, and again."""

    name: Literal["alternate"] = "alternate"
    sft_steps: Annotated[int, Field(ge=1)] = 1
    grpo_steps: Annotated[int, Field(ge=1)] = 1
    __pydantic_config__ = {"extra": "forbid"}

    def decide(self, state: State) -> Mix:
        """The loss whose turn it is."""
        turn = state["step"] % (self.sft_steps + self.grpo_steps)
        if turn < self.sft_steps:
            return Mix(1.0, 0.0, reason=f"SFT, {turn + 1} of {self.sft_steps}")
        return Mix(0.0, 1.0, reason=f"GRPO, {turn - self.sft_steps + 1} of {self.grpo_steps}")

    def shares(self) -> tuple[bool, bool]:
        """Both."""
        return True, True


@dataclass(frozen=True, kw_only=True)
class Cosine(Stateless):
    """An SFT share that moves from `start_share` to `end_share` along half a cosine over the hybrid stage."""

    name: Literal["cosine"] = "cosine"
    start_share: Share = 1.0
    end_share: Share = 0.0
    mode: Mode = "step"
    match_norms: bool = False
    __pydantic_config__ = {"extra": "forbid"}

    def decide(self, state: State) -> Mix:
        """A draw, or a blend, with the share that the schedule has reached."""
        done = min(clock(state) / max(state["total_steps"] - 1, 1), 1.0)
        p = self.end_share + (self.start_share - self.end_share) * 0.5 * (1.0 + math.cos(math.pi * done))
        return mix_from_share(state, p, self.mode, match_norms=self.match_norms, why=f"schedule at {done:.0%}")

    def shares(self) -> tuple[bool, bool]:
        """Whichever loss has a positive share somewhere on the way."""
        return max(self.start_share, self.end_share) > 0, min(self.start_share, self.end_share) < 1
