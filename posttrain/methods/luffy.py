"""LUFFY: the demonstration is one more member of its prompt's group, its tokens under a shaped off-policy ratio.

Source: "Learning to Reason under Off-Policy Guidance", arXiv 2504.14945, and the authors' code. The demonstration is
scored as the rollouts are; advantages are taken over rollouts and demonstration together. A demonstration's token of
probability p and advantage A has the loss

    shaped    -A * p / (p + gamma)
    rl_plus   -A * 2 p / (q + (q + 1) / 2) * sg(1 - p)^(1/2)     q = sg(p)   (RL-PLUS, arXiv 2508.00222)

so that unlikely tokens are learned from more than under p itself, and the gradient ends where p is 1. There is no
ratio to the policy that sampled: it did not sample them.

Deviations. In RL-PLUS q is the old policy's probability; in a window of one step the two are the same, and where a
window has several q is the policy's. Tokens are divided as TRL's `loss_type` divides those of a rollout (the authors:
by the longest response). `normalise` is off as in the released script; the paper divides by the standard deviation. It
holds for groups without a demonstration, too, so that all weigh alike: `scale_rewards` has no effect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from posttrain.methods.base import Arranged, Group, Method, Tensor, TooLong, together


@dataclass(frozen=True, kw_only=True)
class LUFFY(Method):
    """The demonstration in the group.

    Args:
        ratio: The loss of its tokens.
        gamma: Of `shaped`.
        normalise: Divide advantages by the standard deviation of the group.
        too_long: What becomes of demonstrations beyond the completion limit.
    """

    name: Literal["luffy"] = "luffy"
    ratio: Literal["shaped", "rl_plus"] = "shaped"
    gamma: Annotated[float, Field(gt=0)] = 0.1
    normalise: bool = False
    too_long: TooLong = "leave_out"
    scores_demonstrations: ClassVar[bool] = True
    own_advantages: ClassVar[bool] = True
    divisor: ClassVar[Literal["own", "rollouts"]] = "rollouts"
    __pydantic_config__ = {"extra": "forbid"}

    def arrange(self, group: Group) -> Arranged:
        """Advantages over all members, the demonstration's as its credit."""
        demonstration = group.demonstration
        if demonstration is None or demonstration != demonstration:  # none, or no reward judges it
            advantages, _ = together(group.rewards, normalise=self.normalise)
            return Arranged(advantages, reason="no demonstration: rollouts alone")
        advantages, credit = together(group.rewards, demonstration, normalise=self.normalise)
        return Arranged(advantages, credit, "the demonstration in the group")

    def token_loss(self, logps_BC: Tensor, credit_B1: Tensor) -> Tensor:
        """(B, C) the loss of a demonstration's tokens."""
        p = logps_BC.exp()
        if self.ratio == "shaped":
            return -credit_B1 * p / (p + self.gamma)
        q = p.detach()
        return -credit_B1 * 2 * p / (q + (q + 1) / 2) * (1 - q).clamp(min=0).sqrt()
