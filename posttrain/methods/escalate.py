"""Escalation: rollouts are sampled in blocks, and the rewards so far decide with how long a beginning the next goes on.

Two forms, each from its paper and its authors' code:

- `trapo` (TRAPO, arXiv 2512.17636): blocks of 4, 2, 1 and 1 of 8 rollouts. Behind 4, 6 and 7 rollouts, fewer than 2, 4
  and 7 solved have the next block go on from 25, 50 and 100 % of the demonstration; enough of them, from nothing. A
  beginning is trained on once a block, by its last row: a token of probability p has the credit 1 and the loss
  -p / max(sg(p), alpha) (TrSFT), whose derivative by log p is -p / max(p, alpha).
- `ghpo` (GHPO, arXiv 2507.10628): a group of which no rollout is solved is sampled again whole, behind 25, then 50,
  then 75 % of the demonstration, until one is; the last of them are trained on, their beginnings are not.

What is sampled has GRPO's loss. A row is scored as a whole, and its reward counts in its group's mean.

Deviations. Beginnings are the demonstration's own tokens, cut at the share: TRAPO goes on to the next blank line
(within 30 %), GHPO puts as many characters of the solution into the user's message. The whole demonstration leaves its
last token to be sampled, and the row is sampled to its end (TRAPO samples one token). Advantages are TRL's, with
`scale_rewards` and the clip, which have no effect in one pass (TRAPO: no deviation, no clip). A beginning's tokens are
divided as TRL's `loss_type` divides those of one more rollout. GHPO's share in the YAML, which is not what its code
decides by, is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from posttrain.errors import ConfigError
from posttrain.methods.base import Arranged, Block, Group, Method, Tensor, TooLong, solved

BLOCKS, BELOW, SHARES = (4, 2, 1, 1), (2, 4, 7), (0.25, 0.5, 1.0)
"""TRAPO's."""

AGAIN = (0.25, 0.5, 0.75)
"""GHPO's shares."""


@dataclass(frozen=True, kw_only=True)
class Escalate(Method):
    """Longer beginnings where shorter ones did not do.

    Args:
        form: `trapo` samples a group block by block, `ghpo` samples dead groups again whole.
        blocks: Of `trapo`, rollouts of each block; together they are the group. None is (4, 2, 1, 1).
        below: For each share, the number of solved rollouts below which it is given: of those sampled so far (`trapo`;
            None is (2, 4, 7)), or of the group (`ghpo`; None is 1 for each).
        shares: Of the demonstration. None is (0.25, 0.5, 1) or, for `ghpo`, (0.25, 0.5, 0.75).
        passing: The least reward of a solved rollout.
        credit: Of `trapo`, of a beginning's tokens; 0 does not train on them.
        alpha: Of `trapo`, the probability from which on a token is learned as by the likelihood.
        too_long: What becomes of demonstrations beyond the completion limit.

    Raises:
        ConfigError: Settings that don't go with each other, or have no effect.
    """

    name: Literal["escalate"] = "escalate"
    form: Literal["trapo", "ghpo"] = "trapo"
    blocks: tuple[int, ...] | None = None
    below: tuple[int, ...] | None = None
    shares: tuple[float, ...] | None = None
    passing: float = 1.0
    credit: Annotated[float, Field(ge=0)] = 1.0
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.1
    too_long: TooLong = "leave_out"
    begins_rollouts: ClassVar[bool] = True
    escalates: ClassVar[bool] = True
    divisor: ClassVar[Literal["own", "rollouts"]] = "rollouts"
    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for name in ("blocks", "below", "shares"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("blocks", "credit", "alpha"):
            if self.form == "ghpo" and getattr(self, name) != getattr(type(self), name):
                raise ConfigError(
                    f"{getattr(self, name)} with form: ghpo",
                    expected="form: trapo: ghpo samples whole groups again, and trains no beginning",
                    where=name,
                    fix=f"leave {name} out, or set form to trapo",
                )
        shares, below, sizes = self.given_shares, self.thresholds, self.sizes
        if not shares or any(not 0.0 < share <= 1.0 for share in shares) or list(shares) != sorted(set(shares)):
            raise ConfigError(
                f"{list(shares)}", expected="shares of the demonstration above 0, up to 1, rising", where="shares"
            )
        if len(below) != len(shares):
            raise ConfigError(
                f"{list(below)} for the shares {list(shares)}", expected="a number for each share", where="below"
            )
        if self.form == "trapo" and (len(sizes) != len(shares) + 1 or min(sizes) < 1):
            raise ConfigError(
                f"{list(sizes)} for the shares {list(shares)}",
                expected="a first block and one for each share, of a rollout at least",
                where="blocks",
            )
        reached = list(accumulate(sizes))[:-1] if self.form == "trapo" else [None] * len(below)
        for least, rollouts in zip(below, reached, strict=True):
            if least < 1 or (rollouts is not None and least > rollouts):
                bound = "" if rollouts is None else f", up to the {rollouts} rollouts that are sampled by then"
                raise ConfigError(f"{least}", expected=f"solved rollouts, 1 at least{bound}", where="below")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rollouts of each block of `trapo`."""
        return BLOCKS if self.blocks is None else self.blocks

    @property
    def given_shares(self) -> tuple[float, ...]:
        """Of the demonstration, by level from 1 on."""
        return (SHARES if self.form == "trapo" else AGAIN) if self.shares is None else self.shares

    @property
    def thresholds(self) -> tuple[int, ...]:
        """Solved rollouts below which each share is given."""
        if self.below is not None:
            return self.below
        return BELOW if self.form == "trapo" else (1,) * len(self.given_shares)

    @property
    def prefix_credit(self) -> float:
        """Of the tokens of a beginning that is trained on."""
        return self.credit if self.form == "trapo" else 0.0

    def check_group(self, rows: int) -> None:
        """Refuse groups that the blocks don't make up, and thresholds that a group cannot reach."""
        if self.form == "trapo" and sum(self.sizes) != rows:
            fit = self.scaled_to(rows)
            raise ConfigError(
                f"blocks of {' + '.join(map(str, self.sizes))} = {sum(self.sizes)} rollouts, of {rows} in a group",
                expected=f"blocks of {rows} rollouts together (num_generations)",
                where="blocks",
                fix=f"for example blocks: {list(fit.sizes)}, below: {list(fit.thresholds)}, "
                f"shares: {list(fit.given_shares)}",
            )
        if max(self.thresholds) > rows:
            raise ConfigError(
                f"{max(self.thresholds)} of {rows} rollouts",
                expected=f"at most {rows} (num_generations)",
                where="below",
            )

    def scaled_to(self, rows: int) -> Self:
        """The same for groups of another size: half of the group first, half of the rest next, and so on."""
        if self.form == "ghpo":
            return replace(self, below=tuple(min(least, rows) for least in self.thresholds))
        if sum(self.sizes) == rows:
            return self
        sizes, left = [], rows
        while left > 1:
            sizes.append(left // 2)
            left -= left // 2
        sizes.append(left)
        reached = list(accumulate(sizes))[:-1]
        below = [(rollouts + 1) // 2 for rollouts in reached[:-1]] + reached[-1:]
        shares = [0.5**further for further in range(len(below) - 1, -1, -1)]
        return replace(self, blocks=tuple(sizes), below=tuple(below), shares=tuple(shares))

    def next_block(self, number: int, rewards: tuple[float, ...]) -> Block | None:
        """Of `trapo` the next rows of the group, of `ghpo` all of them once more while too few are solved."""
        rows = range(len(rewards))
        if self.form == "trapo":
            if number == len(self.sizes):
                return None
            start = sum(self.sizes[:number])
            rows = range(start, start + self.sizes[number])
        if number == 0:
            return Block(rows)
        if number > len(self.given_shares):
            return None
        enough = solved(rewards[: rows.start] if self.form == "trapo" else rewards, self.passing)
        if enough >= self.thresholds[number - 1]:
            return Block(rows) if self.form == "trapo" else None
        trained = rows[-1] if self.form == "trapo" else None
        return Block(rows, number, self.given_shares[number - 1], trained)

    def arrange(self, group: Group) -> Arranged:
        """Everything as sampled; the reason tells how far the group was escalated."""
        if group.demonstration is None:
            return Arranged(group.advantages, reason="no demonstration: GRPO")
        if not group.level:
            reason = "enough solved" if self.form == "trapo" else f"at least {self.thresholds[0]} solved"
            return Arranged(group.advantages, reason=f"{reason}: from nothing", opened=False)
        share = f"{self.given_shares[group.level - 1]:.0%} of the demonstration"
        if self.form == "trapo":
            return Arranged(group.advantages, reason=f"too few solved: up to {share}", opened=True)
        done = solved(group.rewards, self.passing) >= self.thresholds[group.level - 1]
        reason = f"again behind {share}: {'enough' if done else 'too few'} solved"
        return Arranged(group.advantages, reason=reason, opened=True)

    def token_loss(self, logps_BC: Tensor, credit_B1: Tensor) -> Tensor:
        """(B, C) the loss of a beginning's tokens."""
        p = logps_BC.exp()
        return -credit_B1 * p / p.detach().clamp(min=self.alpha)
