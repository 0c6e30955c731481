"""What a method is: decisions about one prompt's rollouts and demonstration, and a loss of the demonstration's tokens.

The loss of a step is a sum over where tokens come from. Tokens that the policy sampled have TRL's GRPO loss, whose
advantages a method may change. Tokens of a demonstration, a whole one or the beginning that a rollout went on from,
have a credit and a loss of their own, divided by

- `own`: their number over the whole optimizer step and all processes, or
- `rollouts`: what the rollouts' tokens are divided by, as if they were tokens of one more rollout.

So the gradient depends neither on how a step is cut into micro-batches nor on the number of processes. Shapes: B rows,
C columns of a completion.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Self

Tensor = Any
"""A `torch.Tensor`: recipes are read without torch, so that no method imports it."""

TooLong = Literal["refuse", "leave_out"]
"""What becomes of a demonstration that is longer than a completion may be: it is never cut."""


LOSSES = ("grpo", "dr_grpo", "dapo")
"""Values of `loss_type` beside which a method's loss is exact."""


class Group(NamedTuple):
    """The rollouts of one prompt after scoring.

    Attributes:
        rewards: Of each rollout, weighted and summed; NaN where no reward applies.
        advantages: As TRL computed them.
        demonstration: The reward of the prompt's demonstration, scored as a rollout is; NaN if it was not scored, and
            `None` if the prompt has no demonstration.
        level: The highest of the group's blocks; 0 where the method does not escalate.
    """

    rewards: tuple[float, ...]
    advantages: tuple[float, ...]
    demonstration: float | None
    level: int = 0


class Block(NamedTuple):
    """Rollouts of a group that are sampled before the method looks at it again.

    Attributes:
        rows: Their numbers in the group. Rows that were sampled before are sampled again in place of these.
        level: 0 for rollouts from nothing, then the number of the share.
        share: Of the demonstration, with which they begin.
        trained: The row whose beginning is trained on, too.
    """

    rows: range
    level: int = 0
    share: float = 0.0
    trained: int | None = None

    def beginning(self, tokens: int) -> int:
        """Tokens of a demonstration of so many that the rows begin with: one at least, and never all."""
        return min(max(int(self.share * tokens), 1), tokens - 1) if self.level else 0


class Arranged(NamedTuple):
    """What a method makes of a group.

    Attributes:
        advantages: Of each rollout.
        credit: Of the whole demonstration's tokens in `token_loss`; 0 leaves it out.
        reason: In words, for the log: the same for all groups that were treated alike.
        waits: Whether the demonstration is to wait for an SFT step (see `Method.buffer`).
        nll: Of its NLL beside `token_loss`, which is divided as `own` is and weighed by `nll_weights`; with both 0 it
            is left out.
        opened: Whether a gate let the demonstration in; `None` where the method has no gate, or the group has none.
    """

    advantages: tuple[float, ...]
    credit: float = 0.0
    reason: str = ""
    waits: bool = False
    nll: float = 0.0
    opened: bool | None = None


class Method:
    """A method that leaves everything as it is. Methods are frozen dataclasses of their settings.

    Attributes:
        name: What a recipe calls it.
        too_long: See `TooLong`.
        begins_rollouts: Whether rollouts may begin with a part of the demonstration.
        escalates: Whether a group is sampled block by block (`next_block`), its rewards looked at in between.
        scores_demonstrations: Whether it needs to know what the rewards say of a demonstration.
        prefix: What trains the beginning that a rollout went on from: GRPO with the row's advantage (`grpo`), or
            `token_loss` with the credit `prefix_credit` (`own`).
        divisor: Of `token_loss` (see the module).
        prefix_credit: Of a beginning's tokens where `prefix` is `own`.
        likelihood: Whether demonstrations are trained on by their likelihood, whose tokens `sft_weight` then weighs.
        buffer: Demonstrations that one SFT step takes, as soon as so many wait; 0 has none wait.
        own_advantages: Whether it makes all advantages itself, so that `scale_rewards` has no effect.
        shows_teacher: Whether the policy is shown the demonstration as a teacher, whose log-probabilities weigh
            advantages, and the KL to which has the weight `teacher_kl`; `context` is what it is shown.
        needs_entropies: Whether rows are weighed by their mean entropy (`nll_weights`, `advantages_by_entropy`).
        measures: Means of a step that its record has beside those of every method.
    """

    name: str
    too_long: TooLong = "leave_out"
    teacher_kl: float = 0.0
    context: str = ""
    begins_rollouts: ClassVar[bool] = False
    escalates: ClassVar[bool] = False
    scores_demonstrations: ClassVar[bool] = False
    prefix: ClassVar[Literal["grpo", "own"]] = "own"
    divisor: ClassVar[Literal["own", "rollouts"]] = "own"
    likelihood: ClassVar[bool] = False
    buffer: int = 0
    own_advantages: ClassVar[bool] = False
    shows_teacher: ClassVar[bool] = False
    needs_entropies: ClassVar[bool] = False
    measures: ClassVar[tuple[str, ...]] = ()

    @property
    def prefix_credit(self) -> float:
        """Of a beginning's tokens."""
        return 0.0

    def prefix_length(self, row: int, *, rows: int, tokens: int, done: float, draw: random.Random) -> int:
        """With how many tokens of the demonstration a rollout begins.

        Args:
            row: The rollout's number in its group, from 0.
            rows: Rollouts of the group, G.
            tokens: Of the demonstration.
            done: Share of the stage's steps that lie behind, from 0 to 1.
            draw: A generator of this group's; the same for all its rows.
        """
        return 0

    def check_group(self, rows: int) -> None:
        """Refuse groups of a size that the settings don't go with.

        Raises:
            ConfigError: Its `where` is the setting.
        """

    def scaled_to(self, rows: int) -> Self:
        """The same method for groups of so many rollouts."""
        return self

    def next_block(self, number: int, rewards: tuple[float, ...]) -> Block | None:
        """What of a group with a demonstration is sampled next; `None` when it is done.

        Args:
            number: Blocks of the group so far.
            rewards: Of the group's rollouts, weighted and summed; NaN where not sampled yet, or not scored.
        """
        return None

    def arrange(self, group: Group) -> Arranged:
        """What the rollouts of a prompt and its demonstration count."""
        return Arranged(group.advantages)

    def token_loss(self, logps_BC: Tensor, credit_B1: Tensor) -> Tensor:
        """(B, C) the loss of a demonstration's tokens: their NLL times the credit."""
        return -credit_B1 * logps_BC

    def advantages_by_token(self, advantages_B1: Tensor, entropies_BC: Tensor, prefix_BC: Tensor) -> Tensor:
        """(B, 1) or (B, C) advantages of GRPO's tokens where `prefix` is `grpo`.

        Args:
            advantages_B1: Of the rows.
            entropies_BC: Of the policy's next-token distributions, in nats, detached.
            prefix_BC: True on the tokens of a demonstration's beginning.
        """
        return advantages_B1

    def teacher_share(self, step: float) -> float:
        """How much the teacher weighs advantages after so many optimizer steps; it never rises."""
        return 0.0

    def teacher_weights(self, advantages_B1: Tensor, deltas_BC: Tensor, share: float) -> Tensor:
        """(B, C) what advantages are multiplied by.

        Args:
            advantages_B1: Of the rows.
            deltas_BC: By how much a token is likelier to the teacher than to the policy that sampled it, in nats.
            share: As `teacher_share` gives it.
        """
        raise NotImplementedError

    def clipped(self, advantages_B1: Tensor, deltas_BC: Tensor) -> Tensor:
        """(B, C) what `teacher_weights` makes of the deltas before `share`, within its bounds."""
        raise NotImplementedError

    def nll_weights(self, entropies_B1: Tensor) -> Tensor:
        """(B, 1) of demonstrations' NLL, by the mean entropy of their tokens."""
        raise NotImplementedError

    def advantages_by_entropy(self, advantages_B1: Tensor, entropies_B1: Tensor) -> Tensor:
        """(B, 1) of rollouts, by the mean entropy of their tokens."""
        raise NotImplementedError


def beginning(method: Method, group: int, row: int, *, rows: int, tokens: int, done: float, window: str) -> int:
    """With how many tokens of its group's demonstration a row begins; 0 where there is nothing to go on with.

    Args:
        method: Whose schedule it is.
        group: The group's number in its window.
        row, rows, tokens, done: As for `Method.prefix_length`.
        window: What names the window, `SEED:NUMBER`: the draws of a group come from that and its own number.
    """
    if tokens < 2:
        return 0
    draw = random.Random(f"beginning:{window}:{group}")
    return method.prefix_length(row, rows=rows, tokens=tokens, done=done, draw=draw)


def cosine(start: float, end: float, done: float) -> float:
    """From `start` to `end` along half a cosine; `done` is held within 0 and 1."""
    done = min(max(done, 0.0), 1.0)
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * done))


def weight_refused(method: Method, sft_weight: str, *, sft_steps: bool, by_row: bool = False) -> str | None:
    """Why a token weight of SFT would have no effect beside a method, or not the one it says; `None` where it has.

    Args:
        method: Whose demonstrations are to be weighed.
        sft_weight: Other than `nll`.
        sft_steps: Whether the controller takes SFT steps, whose demonstrations it weighs in any case.
        by_row: Whether the weight is one of whole demonstrations.
    """
    if by_row and method.likelihood and not method.buffer:
        return f"the method {method.name} trains on a prompt's demonstration beside its rollouts, token by token"
    if sft_weight == "clipped" and method.likelihood:
        return (
            f"the method {method.name} trains on a demonstration once, where the policy is still the one that clipped "
            "compares it with: it would be nll"
        )
    if not method.likelihood and not sft_steps:
        return f"the method {method.name} trains on no demonstration by its likelihood alone"
    return None


SAME = 1e-6
"""Rewards are sums in float32: weights of .45, .35 and .2 add up to a little less than 1."""


def passes(reward: float, passing: float) -> bool:
    """Whether a reward is at least `passing`, as far as sums of rewards are known; what was not scored is not."""
    return reward >= passing - SAME


def solved(rewards: Sequence[float], passing: float) -> int:
    """Rollouts whose reward is at least `passing`; what was not scored counts as unsolved."""
    return sum(passes(reward, passing) for reward in rewards)


def together(
    rewards: Sequence[float], demonstration: float = math.nan, *, normalise: bool
) -> tuple[tuple[float, ...], float]:
    """Advantages over a group of which the demonstration is a member: of its rollouts, and its own.

    Args:
        rewards: Of the rollouts; NaN is left out of the mean and gets 0.
        demonstration: The demonstration's; NaN is no member, and gets 0.
        normalise: Divide by the standard deviation (plus 1e-4, as TRL does).
    """
    known = [reward for reward in (*rewards, demonstration) if not math.isnan(reward)]
    if not known:
        return (0.0,) * len(rewards), 0.0
    mean = sum(known) / len(known)
    spread = 1.0
    if normalise:
        spread = math.sqrt(sum((reward - mean) ** 2 for reward in known) / max(len(known) - 1, 1)) + 1e-4
    own = tuple(0.0 if math.isnan(reward) else (reward - mean) / spread for reward in rewards)
    return own, 0.0 if math.isnan(demonstration) else (demonstration - mean) / spread
