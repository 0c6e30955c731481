"""Which further prompts take the places of groups that teach nothing: DAPO's dynamic sampling (arXiv 2503.14476, 3.2).

A window's prompts are numbered as they come from the stream: 0, 1, ... are those that it is drawn with, and a dead
group's place goes to the next number. The window ends with the first number by which no group is dead, or with the
last that the limit allows. Which prompts that are follows from their rewards alone, not from how many are sampled at
once. Groups that are dead at the end stay.

What differs from DAPO: a group is dead when its rewards, weighed and summed, are equal, not only where all answers are
right or all wrong; what is sampled beyond the batch is nothing, where verl's code samples whole batches and cuts off
what is too much; and what is dead at the limit is trained on as without refilling, where verl's code ends the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.errors import ConfigError
from posttrain.nearest import did_you_mean

LIMIT = "max_batches"


@dataclass(frozen=True)
class Refill:
    """How far a window may go.

    Attributes:
        max_batches: Prompts that are sampled for a window at the most, the first ones included, as a multiple of those
            that it has; verl's `max_num_gen_batches`.
    """

    max_batches: int

    @classmethod
    def of(cls, given: Mapping[str, Any] | Refill | None) -> Refill | None:
        """From a mapping of its attributes.

        Raises:
            ConfigError: It has others, or a limit that allows no further prompt.
        """
        if given is None or isinstance(given, Refill):
            return given
        unknown = [str(name) for name in given if name != LIMIT]
        if unknown or not given:
            fix = did_you_mean(unknown[0], (LIMIT,)) if unknown else None
            raise ConfigError(
                f"refill with {', '.join(unknown) or 'nothing in it'}", expected=LIMIT, where="refill", fix=fix
            )
        most = given[LIMIT]
        if isinstance(most, bool) or not isinstance(most, int) or most < 2:
            raise ConfigError(
                f"{most!r}",
                expected="a whole number of 2 or more: 1 is a window's own prompts, of which none would be replaced",
                where=f"refill.{LIMIT}",
                fix="leave refill out to replace no group",
            )
        return cls(most)


def replacements(dead: Sequence[bool], drawn: int, most: int) -> dict[int, int]:
    """The number of the prompt that comes next into each place, by place; empty at the end.

    Args:
        dead: Of each place, whether its group is.
        drawn: Prompts that the window has taken so far.
        most: That it may take.
    """
    places = [place for place, is_dead in enumerate(dead) if is_dead]
    return dict(zip(places, range(drawn, most), strict=False))
