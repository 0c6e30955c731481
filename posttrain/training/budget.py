"""A budget of the hybrid stage: so many seconds, tokens, operations or steps, after which it ends.

A stage that ends with a budget has no number of steps to tell its schedules by. `max_steps` is then the length that
they are written for, and where they stand is the share of the budget that is spent, times `max_steps`: the learning
rate, the schedules of controllers (`controllers.base.clock`) and of methods. So an arm with cheap steps goes through
the same learning rates as one with dear steps, over more of them. With a budget of as many steps as `max_steps` all is
as without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from posttrain.errors import ConfigError
from posttrain.nearest import did_you_mean

KINDS = ("seconds", "tokens", "flops", "steps")
MOST_STEPS = 10_000_000
"""Where a stage ends at the latest whose budget is not of steps."""


@dataclass(frozen=True)
class Budget:
    """What a stage may spend.

    Attributes:
        kind: One of `KINDS`.
        amount: Above 0; of steps a whole number.
    """

    kind: str
    amount: float

    @classmethod
    def of(cls, given: Mapping[str, Any] | Budget | None) -> Budget | None:
        """A budget from a mapping of one kind to its amount.

        Raises:
            ConfigError: It names no kind or several, or its amount is not above 0.
        """
        if given is None or isinstance(given, Budget):
            return given
        some = {kind: amount for kind, amount in given.items() if amount is not None}
        unknown = [str(kind) for kind in some if kind not in KINDS]
        if unknown or len(some) != 1:
            raise ConfigError(
                f"a budget of {', '.join(map(str, some)) or 'nothing'}",
                expected=f"one of {', '.join(KINDS)}",
                where="budget",
                fix=did_you_mean(unknown[0], KINDS) if unknown else "keep one",
            )
        ((kind, amount),) = some.items()
        whole = isinstance(amount, int) or kind != "steps"
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not (0 < amount < float("inf") and whole):
            expected = "a whole number above 0" if kind == "steps" else "a number above 0"
            raise ConfigError(f"{kind}: {amount!r}", expected=expected, where="budget")
        return cls(kind, amount)

    @property
    def most_steps(self) -> int:
        """The steps that the stage cannot go beyond."""
        return int(self.amount) if self.kind == "steps" else MOST_STEPS

    def spent(self, so_far: Mapping[str, Any], steps: int) -> float:
        """How much of it is spent.

        Args:
            so_far: `Spending.so_far`.
            steps: Optimizer steps done.
        """
        if self.kind == "steps":
            return steps
        if self.kind == "tokens":
            return so_far["sampled_tokens"] + so_far["trained_tokens"]
        return so_far[self.kind]

    def clock(self, so_far: Mapping[str, Any], steps: int, horizon: int) -> float:
        """Where schedules that are written for `horizon` steps stand."""
        return min(self.spent(so_far, steps), self.amount) * horizon / self.amount

    def is_over(self, so_far: Mapping[str, Any], steps: int) -> bool:
        """Whether nothing is left."""
        return self.spent(so_far, steps) >= self.amount

    def in_words(self) -> str:
        """Such as `240 seconds`."""
        return f"{self.amount:g} {self.kind}"
