"""ReLIFT: demonstrations of the prompts that no rollout solves wait until they make one SFT step; RL on all the rest.

Source: "Learning What Reinforcement Learning Can't: Interleaved Online Fine-Tuning for Hardest Questions", arXiv
2506.07527, and the authors' code. A prompt whose rollouts all fail goes with its demonstration into a buffer. When that
holds `buffer` of them, one optimizer step of SFT is taken over so many, and they are removed. GRPO's update of the
window is as it would be without the buffer.

Here: the SFT step comes behind the window that filled the buffer, at most one behind a window, and is one of the
stage's steps, with the learning rate of its place. Its loss is the NLL of all tokens of the `buffer` demonstrations,
divided by their number over the whole step and all processes, each token weighted by `sft_weight`. A prompt that fails
again while it waits keeps its place; behind its SFT step it may enter anew. More failures than the buffer has room for
wait for the next window, and what waits when the stage ends is not trained on. A skipped SFT step (a gradient that is
not finite) has used its demonstrations up.

Deviations. The authors take the newest, so that the oldest may wait for ever: here it is the oldest. They train SFT
with an optimizer of its own, so that RL's moments are untouched by it; here both share the stage's, whose state any
launcher saves and shards. With Adam the SFT gradient so moves the policy over the ten steps or so that its first moment
remembers, and enters the second: a share f of SFT steps whose gradient, after clipping, is r times GRPO's makes GRPO's
steps sqrt(1 + f (r^2 - 1)) times smaller in the long run. In 128 steps of `recipes/methods/relift.yaml`, 2 of them SFT,
r was 5.7 (norms around 2, clipped to 1), so that the factor was 1.2. A lower `max_grad_norm` lowers it. The entropy
bonus of the authors' losses is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from posttrain.methods.base import Arranged, Group, Method, TooLong, solved


@dataclass(frozen=True, kw_only=True)
class ReLIFT(Method):
    """SFT on what RL fails at, when enough of it has come together.

    Args:
        buffer: Demonstrations that one SFT step takes.
        passing: The least reward of a solved rollout.
        too_long: What becomes of demonstrations beyond the completion limit.
    """

    name: Literal["relift"] = "relift"
    buffer: Annotated[int, Field(ge=1)] = 128
    passing: float = 1.0
    too_long: TooLong = "leave_out"
    likelihood: ClassVar[bool] = True
    __pydantic_config__ = {"extra": "forbid"}

    def arrange(self, group: Group) -> Arranged:
        """GRPO on every group; the demonstration of one that fails waits."""
        rows = len(group.rewards)
        if solved(group.rewards, self.passing):
            closed = None if group.demonstration is None else False
            return Arranged(group.advantages, reason=f"some of {rows} solved: GRPO", opened=closed)
        if group.demonstration is None:
            return Arranged(group.advantages, reason=f"none of {rows} solved, no demonstration: GRPO")
        reason = f"none of {rows} solved: GRPO, the demonstration waits"
        return Arranged(group.advantages, reason=reason, waits=True, opened=True)
