"""Which further prompts take the places of groups that teach nothing: DAPO's dynamic sampling (arXiv 2503.14476, 3.2).

A window's prompts are numbered as they come from the stream: 0, 1, ... are those that it is drawn with, and a dead
group's place goes to the next number. The window ends with the first number by which no group is dead, or with the
last that the limit allows. Which prompts that are, and where each has its place, follows from their rewards alone, not
from how many are sampled at once. Groups that are dead at the end stay.

What differs from DAPO: a group is dead when its rewards, weighed and summed, are equal, not only where all answers are
right or all wrong; verl's code samples whole batches and cuts off what is too much, here a round has as many prompts as
are likely to be needed; and what is dead at the limit is trained on as without refilling, where verl's code ends the
run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from posttrain.errors import ConfigError
from posttrain.nearest import did_you_mean

MEMORY = 0.7
"""What the share of dead groups of windows before counts in the one that is expected."""


@dataclass(frozen=True)
class Refill:
    """How far a window may go, and how.

    Attributes:
        max_batches: Prompts that are sampled for a window at the most, the first ones included, as a multiple of those
            that it has; verl's `max_num_gen_batches`.
        ahead: Sample with a window's own prompts as many further ones as are likely to be needed, by the share of dead
            groups lately: a round lasts as long as its longest completion, whether it has many or few. What is not
            needed is thrown away, and its prompts come in the next window.
    """

    max_batches: int
    ahead: bool = True

    @classmethod
    def of(cls, given: Mapping[str, Any] | Refill | None) -> Refill | None:
        """From a mapping of its attributes.

        Raises:
            ConfigError: It has others, or a limit that allows no further prompt.
        """
        if given is None or isinstance(given, Refill):
            return given
        names = [each.name for each in fields(cls)]
        unknown = [str(name) for name in given if name not in names]
        if unknown or "max_batches" not in given:
            fix = did_you_mean(unknown[0], names) if unknown else "set max_batches, such as 3"
            seen = f"refill with {', '.join(unknown)}" if unknown else "refill without a limit"
            raise ConfigError(seen, expected=" and ".join(names), where="refill", fix=fix)
        most, ahead = given["max_batches"], given.get("ahead", True)
        if isinstance(most, bool) or not isinstance(most, int) or most < 2:
            raise ConfigError(
                f"{most!r}",
                expected="a whole number of 2 or more: 1 is a window's own prompts, of which none would be replaced",
                where="refill.max_batches",
                fix="leave refill out to replace no group",
            )
        if not isinstance(ahead, bool):
            raise ConfigError(f"{ahead!r}", expected="true or false", where="refill.ahead")
        return cls(most, ahead)

    def most(self, places: int) -> int:
        """Prompts that a window of so many places may take."""
        return self.max_batches * places

    def at_first(self, places: int, dead_share: float) -> int:
        """Prompts of the first round, where so many groups are expected to be dead.

        With `ahead`, the mean of what is needed and one standard deviation: the failures before as many successes as
        there are places are negative binomial.
        """
        if not self.ahead or dead_share <= 0.0:
            return places
        alive = 1.0 - dead_share
        if alive <= 0.0:
            return self.most(places)
        further = places * dead_share / alive + math.sqrt(places * dead_share) / alive
        return min(places + round(further), self.most(places))


def expected(before: float | None, dead: Sequence[bool]) -> float:
    """The share of dead groups to expect, from what was expected before and what a window showed."""
    now = sum(dead) / len(dead)
    return now if before is None else MEMORY * before + (1.0 - MEMORY) * now


def needed(dead: Sequence[bool], places: int, most: int) -> int:
    """How many prompts a window takes, as far as can be told: no more than were sampled is the answer.

    Args:
        dead: Whether the group of each prompt is, in their order, of those that were sampled.
        places: Groups of the window.
        most: Prompts that it may take.
    """
    alive = 0
    for count, is_dead in enumerate(dead, start=1):
        alive += not is_dead
        if alive == places:
            return count
    return min(len(dead) + places - alive, most)


def settled(dead: Sequence[bool], places: int) -> list[int]:
    """The number of the prompt that each place has in the end.

    Args:
        dead: Of each prompt that the window takes, in their order.
        places: Groups of the window.
    """
    there, drawn = list(range(places)), places
    while due := [place for place, number in enumerate(there) if dead[number]][: len(dead) - drawn]:
        for place in due:
            there[place], drawn = drawn, drawn + 1
    return there
