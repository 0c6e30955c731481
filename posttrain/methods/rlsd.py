"""RLSD: the demonstration stands in a teacher's context alone, and weighs the advantages of the rollouts by token.

Source: RLSD, arXiv 2604.03128, and SDPG, arXiv 2606.04036, as the code of the latter's authors has both. The teacher is
the policy that sampled, shown the prompt x and the demonstration c; nothing of the demonstration is trained on. A
rollout's token of advantage A has

    A * ((1 - lambda) + lambda * clip(exp(sign(A) * delta), 1 - clip, 1 + clip))
    delta = log pi_old(y | c, x) - log pi_old(y | x)

so that what the teacher finds likelier counts more in a rollout that was good, and less in one that was bad; lambda
falls from `share` to 0 in `fades_in` steps, and then it is GRPO. No gradient goes through the weights.

SDPG is its last term, here an option beside the weights or without them (`share: 0`):

    teacher_kl * KL(pi(. | x) || sg pi(. | c, x))       over the whole vocabulary, at each token of the rollouts

divided as `loss_type` divides the rollouts' tokens. Its teacher is the policy as it is in that pass, so that it is the
one that sampled in the first step of a window; its gradient is stopped.

Deviations. Between its ends lambda follows a line: that it goes from 0.5 to 0 in 50 steps is all that we know. What the
teacher is shown is a text of the method's (`context`), made anew by the chat template for it alone: rollouts keep their
tokens. Both see the sampling temperature. SDPG's third term, alpha / 2 * log^2(pi / pi_ref), is left out; TRL's `beta`
holds the policy near its start. Rollouts of a prompt without a demonstration have GRPO alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from posttrain.errors import ConfigError
from posttrain.methods.base import Arranged, Group, Method, Tensor, TooLong

PLACES = ("{demonstration}", "{prompt}")
"""What a context has once each."""


@dataclass(frozen=True, kw_only=True)
class RLSD(Method):
    """Advantages weighed by a teacher that is shown the demonstration.

    Args:
        share: lambda at the stage's first step.
        fades_in: Steps until lambda is 0; `None` keeps it.
        clip: How far from 1 a token's ratio of teacher to policy may be.
        teacher_kl: Weight of SDPG's KL to the teacher (0.001 in its paper).
        context: What the teacher is shown in place of the prompt's text, or of that of its last message.
        too_long: What becomes of demonstrations beyond the completion limit, or with which the teacher's context and a
            completion would be longer than the model's positions.

    Raises:
        ConfigError: The teacher would have no say, or `context` lacks a place.
    """

    name: Literal["rlsd"] = "rlsd"
    share: Annotated[float, Field(ge=0, le=1)] = 0.5
    fades_in: Annotated[int, Field(ge=1)] | None = 50
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2
    teacher_kl: Annotated[float, Field(ge=0)] = 0.0
    context: str = "A right answer:\n{demonstration}\n\n{prompt}"
    too_long: TooLong = "leave_out"
    shows_teacher: ClassVar[bool] = True
    measures: ClassVar[tuple[str, ...]] = ("teacher_share", "teacher_weight", "teacher_clipped", "teacher_kl")
    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if not self.share and not self.teacher_kl:
            raise ConfigError(
                "share is 0 and teacher_kl is 0, so that the teacher has no say",
                expected="one of them above 0",
                where="share",
                fix="set share: 0.5 (RLSD) or teacher_kl: 0.001 (SDPG), or leave the method out",
            )
        if wrong := [place for place in PLACES if self.context.count(place) != 1]:
            raise ConfigError(
                f"{self.context!r}, with {wrong[0]} {self.context.count(wrong[0])} times",
                expected=f"a text with {' and '.join(PLACES)}, once each",
                where="context",
                fix=f"write {wrong[0]} where it is to stand, or leave context out",
            )

    def arrange(self, group: Group) -> Arranged:
        """The advantages as they are; what the teacher makes of them is by token."""
        if group.demonstration is None:
            return Arranged(group.advantages, reason="no demonstration: GRPO")
        return Arranged(group.advantages, reason="the teacher is shown the demonstration")

    def teacher_share(self, step: float) -> float:
        """Lambda after so many optimizer steps."""
        if self.fades_in is None:
            return self.share
        return self.share * max(0.0, 1.0 - step / self.fades_in)

    def teacher_weights(self, advantages_B1: Tensor, deltas_BC: Tensor, share: float) -> Tensor:
        """(B, C) what the advantages are multiplied by."""
        return 1.0 - share + share * self.clipped(advantages_B1, deltas_BC)

    def clipped(self, advantages_B1: Tensor, deltas_BC: Tensor) -> Tensor:
        """(B, C) the ratio of teacher to policy, turned over where the advantage is negative, within its bounds."""
        return (advantages_B1.sign() * deltas_BC).exp().clamp(min=1.0 - self.clip, max=1.0 + self.clip)
