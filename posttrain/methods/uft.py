"""UFT: rollouts go on from a hint, the first segments of the demonstration; GRPO, and a little SFT on the hint.

Source: "UFT: Unifying Supervised and Reinforcement Fine-Tuning", arXiv 2505.16984, and the authors' code. A
demonstration is cut into n = min(`segments`, tokens) segments; the first k of them, k ~ Binomial(n, p), are given to
all rollouts of its prompt, with

    p = low + (high - low) / 2 * (1 + cos(pi * step / hint_steps)),   no hint from hint_steps on

Loss: GRPO on the sampled tokens, and `weight` times the mean NLL of the hints' tokens.

Deviations. A hint of all segments leaves the last token to be sampled, or there would be nothing to train on.
`hint_steps` is the share `hinted` of the stage (300 of 500 steps in the paper). The KL term is TRL's `beta` (0.001 in
the paper, 0 by default).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from posttrain.methods.base import Method, TooLong, cosine

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class UFT(Method):
    """Hints that grow shorter.

    Args:
        high, low: What p falls from and to.
        hinted: Share of the stage's steps with hints.
        segments: Most segments of a demonstration.
        weight: Of the hints' loss.
        too_long: What becomes of demonstrations beyond the completion limit.
    """

    name: Literal["uft"] = "uft"
    high: Share = 0.95
    low: Share = 0.05
    hinted: Share = 0.6
    segments: Annotated[int, Field(ge=1)] = 5
    weight: Annotated[float, Field(ge=0)] = 0.001
    too_long: TooLong = "leave_out"
    begins_rollouts: ClassVar[bool] = True
    likelihood: ClassVar[bool] = True
    __pydantic_config__ = {"extra": "forbid"}

    @property
    def prefix_credit(self) -> float:
        """The weight of the hints' loss."""
        return self.weight

    def share(self, done: float) -> float:
        """p, the chance of each segment; 0 behind the hinted part of the stage."""
        return cosine(self.high, self.low, done / self.hinted) if done < self.hinted else 0.0

    def prefix_length(self, row: int, *, rows: int, tokens: int, done: float, draw: random.Random) -> int:
        """The same for all rows of a group."""
        count, p = min(self.segments, tokens), self.share(done)
        shown = sum(draw.random() < p for _ in range(count))
        return min(shown * tokens // count, tokens - 1)
