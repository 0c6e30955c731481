"""SRFT: SFT and RL on demonstrations and rollouts in one loss, each weighed by how sure the policy is. Not reproduced.

Source: "SRFT: A Single-Stage Method with Supervised and Reinforcement Fine-Tuning for Reasoning", arXiv 2506.19767. Of
a prompt, with p a token's probability and H the mean entropy of a row's next-token distributions, in nats:

    demonstration   0.5 * exp(-H) * NLL - A * p        A over rollouts and demonstration together, normalised
    right rollout   0.1 * exp(H) * NLL
    wrong rollout   + log p

No gradient goes through the weights of entropies. The rollouts' terms are GRPO's with the advantages 0.1 * exp(H) and
-1: in the one pass that a step makes over its rows the two gradients are the same.

Not reproduced: a reimplementation by HPT's authors comes to 44.2 where the paper reports 59.5, and that average leaves
AIME25 out; over the six sets that other papers use its own numbers average 53.2.

Deviations. The NLL is one mean over the step's demonstration tokens; all else is divided as TRL's `loss_type` divides
rollouts, the demonstration counted among them. H is of each row (the reimplementation's). In windows of several
optimizer steps the rollouts' terms have GRPO's ratio and clip, as the policy has moved by then. Rollouts of a prompt
without a demonstration keep their own terms. Of rollouts that no reward scored nothing is learned, and a demonstration
that none scored has its NLL alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from posttrain.errors import ConfigError
from posttrain.methods.base import Arranged, Group, Method, Tensor, TooLong, passes, together

Weight = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class SRFT(Method):
    """Demonstrations by SFT and RL, rollouts by reward, in one step.

    Args:
        sft: Of exp(-H) in the weight of a demonstration's NLL.
        demonstrated: Of the demonstration's RL term.
        right: Of exp(H) in the weight of a right rollout's NLL.
        wrong: Of a wrong rollout's term.
        passing: The least reward of a right rollout.
        too_long: What becomes of demonstrations beyond the completion limit.

    Raises:
        ConfigError: Every term is 0.
    """

    name: Literal["srft"] = "srft"
    sft: Weight = 0.5
    demonstrated: Weight = 1.0
    right: Weight = 0.1
    wrong: Weight = 1.0
    passing: float = 1.0
    too_long: TooLong = "leave_out"
    scores_demonstrations: ClassVar[bool] = True
    needs_entropies: ClassVar[bool] = True
    own_advantages: ClassVar[bool] = True
    divisor: ClassVar[Literal["own", "rollouts"]] = "rollouts"
    measures: ClassVar[tuple[str, ...]] = ("nll_weight", "right_weight")
    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if not (self.sft or self.demonstrated or self.right or self.wrong):
            raise ConfigError(
                "sft, demonstrated, right and wrong are all 0, so that nothing is learned",
                expected="one of them above 0",
                where="sft",
                fix="leave them at their defaults",
            )

    def arrange(self, group: Group) -> Arranged:
        """1 and -1 times the weights of right and wrong rollouts; the demonstration by its NLL and its advantage."""
        own = tuple(self._own(reward) for reward in group.rewards)
        demonstration = group.demonstration
        if demonstration is None:
            return Arranged(own, reason="no demonstration: rollouts alone")
        nll = 1.0 if self.sft else 0.0
        if demonstration != demonstration:
            return Arranged(own, nll=nll, reason="a demonstration that no reward scored: its NLL, and rollouts")
        _, credit = together(group.rewards, demonstration, normalise=True)
        return Arranged(own, self.demonstrated * credit, "demonstration and rollouts", nll=nll)

    def _own(self, reward: float) -> float:
        if reward != reward:
            return 0.0
        return self.right if passes(reward, self.passing) else -self.wrong

    def token_loss(self, logps_BC: Tensor, credit_B1: Tensor) -> Tensor:
        """(B, C) the demonstration's RL term: the ratio of its tokens is their probability."""
        return -credit_B1 * logps_BC.exp()

    def nll_weights(self, entropies_B1: Tensor) -> Tensor:
        """(B, 1) of demonstrations' NLL."""
        return self.sft * (-entropies_B1).exp()

    def advantages_by_entropy(self, advantages_B1: Tensor, entropies_B1: Tensor) -> Tensor:
        """(B, 1) right rollouts' advantages, times exp(H); the others as they are."""
        return advantages_B1 * entropies_B1.exp().where(advantages_B1 > 0, 1.0)
