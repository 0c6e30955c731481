"""Prefix-RFT: one rollout of each group goes on from the beginning of the demonstration; RL trains all of it.

Source: "Blending Supervised and Reinforcement Fine-Tuning with Prefix Sampling", arXiv 2507.01679, and the authors'
code. The beginning has floor(l * tokens) tokens, at most all but the last, with l uniform between a lower bound that
falls along half a cosine from `longest` to `shortest` over the stage, and `longest`. The row is scored as a whole, and
its advantage is that of all its tokens; of those of the beginning only the share `kept` of which the policy is least
sure keeps it.

Deviations. The tokens that keep their advantage are picked row by row: the authors sort those of a whole micro-batch
together, which depends on how a step is cut. The beginning is the demonstration's own tokens, never text templated
again. Its ratio to the old policy is 1 in the one pass that a step makes over its rows.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from posttrain.methods.base import Method, Tensor, TooLong, cosine

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class PrefixRFT(Method):
    """One row of each group begins with a part of the demonstration.

    Args:
        longest: Largest share of a demonstration that a rollout begins with.
        shortest: What the lower bound of the share falls to by the stage's end.
        kept: Share of the beginning's tokens, those of the highest entropy, that keep their advantage.
        too_long: What becomes of demonstrations beyond the completion limit.
    """

    name: Literal["prefix_rft"] = "prefix_rft"
    longest: Share = 0.95
    shortest: Share = 0.05
    kept: Share = 0.2
    too_long: TooLong = "leave_out"
    begins_rollouts: ClassVar[bool] = True
    prefix: ClassVar[Literal["grpo", "own"]] = "grpo"
    __pydantic_config__ = {"extra": "forbid"}

    def prefix_length(self, row: int, *, rows: int, tokens: int, done: float, draw: random.Random) -> int:
        """Of the group's last row; the others begin with nothing."""
        if row < rows - 1:
            return 0
        low = cosine(self.longest, self.shortest, done)
        return min(int(draw.uniform(low, self.longest) * tokens), tokens - 1)

    def advantages_by_token(self, advantages_B1: Tensor, entropies_BC: Tensor, prefix_BC: Tensor) -> Tensor:
        """(B, C) the row's advantage, 0 at the surer tokens of its beginning."""
        ranks = entropies_BC.masked_fill(~prefix_BC, float("-inf")).argsort(dim=1, descending=True).argsort(dim=1)
        most = (prefix_BC.sum(dim=1, keepdim=True) * self.kept).ceil()
        return advantages_B1 * (~prefix_BC | (ranks < most))
