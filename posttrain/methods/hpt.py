"""HPT: a prompt that the policy solves is trained on by RL, one that it does not by SFT on its demonstration.

Source: "Towards a Unified View of Large Language Model Post-Training", arXiv 2509.04419, and the authors' code. With c
of G rollouts solved:

    c > gate    GRPO on the rollouts
    c <= gate   coefficient * NLL of the demonstration; the rollouts count nothing

The same gate is DYPO's and SuperRL's (gate 0). Groups that are solved whole have no advantage in GRPO, so that they
count nothing either.

Deviations. The authors add up means over micro-batches for SFT and sums over rows for RL, so that their coefficient
weighs a mean against a sum and grows with the number of micro-batches; here the NLL is one mean over the step's
demonstration tokens, the GRPO loss is TRL's, and the divisor of the latter counts the rollouts that are left out, too.
Of a prompt without a demonstration the rollouts are trained on whatever the gate says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from posttrain.methods.base import Arranged, Group, Method, TooLong, solved


@dataclass(frozen=True, kw_only=True)
class HPT(Method):
    """A gate for each prompt between SFT and GRPO.

    Args:
        gate: Most solved rollouts of a prompt with which its demonstration is trained on instead.
        passing: The least reward of a solved rollout.
        coefficient: Of the demonstrations' loss beside the rollouts'.
        too_long: What becomes of demonstrations beyond the completion limit.
    """

    name: Literal["hpt"] = "hpt"
    gate: Annotated[int, Field(ge=0)] = 0
    passing: float = 1.0
    coefficient: Annotated[float, Field(gt=0)] = 1.0
    too_long: TooLong = "leave_out"
    likelihood: ClassVar[bool] = True
    __pydantic_config__ = {"extra": "forbid"}

    def arrange(self, group: Group) -> Arranged:
        """The demonstration alone, or the rollouts alone."""
        count, rows = solved(group.rewards, self.passing), len(group.rewards)
        if group.demonstration is None:
            return Arranged(group.advantages, reason="no demonstration: GRPO")
        if count <= self.gate:
            reason = f"at most {self.gate} of {rows} solved: demonstration"
            return Arranged((0.0,) * rows, self.coefficient, reason, opened=True)
        return Arranged(group.advantages, reason=f"more than {self.gate} of {rows} solved: GRPO", opened=False)
