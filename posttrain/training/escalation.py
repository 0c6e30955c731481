"""A window that is sampled block by block: the rewards of a group so far decide what its next rollouts begin with.

Every process takes the same decisions, for all groups, from the gathered rewards; each samples and scores its own rows
of a block. A row's number in the window is what its completion is a function of, so that neither the blocks nor the
processes that share them change what is sampled from the same beginning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from posttrain.methods.base import Block, Method

Ids = list[int]
Logps = list[float | None]


class Ask(NamedTuple):
    """Rows of this process to be sampled.

    Attributes:
        places: Their places among the process's rows.
        begun: The tokens that each begins with.
        again: How often they were sampled before in this window.
        idle: Whether this process has none, and samples one for nothing.
    """

    places: list[int]
    begun: list[Ids]
    again: int
    idle: bool = False


@dataclass
class Escalated:
    """What a window came to. `completions`, `logps`, `begun` and `trained` are of this process's rows, in their order.

    Attributes:
        completions: Token ids, with what they begin with.
        logps: Of each sampled token, `None` on what was given; `None` where what sampled has none.
        begun: Tokens that each row begins with.
        trained: Whether these are trained on.
        levels: Of every group of the window, the highest that it came to.
        again: Rollouts, of all processes, that were sampled in place of others.
    """

    completions: list[Ids]
    logps: list[Logps] | None
    begun: list[int]
    trained: list[bool]
    levels: list[int]
    again: int = 0
    _times: dict[int, int] = field(default_factory=dict, repr=False)


def in_blocks(
    method: Method,
    demonstrations: Sequence[Ids],
    *,
    group: int,
    first: int,
    count: int,
    sample: Callable[[Ask], tuple[list[Ids], list[Logps] | None]],
    score: Callable[[list[int], list[Ids]], list[float]],
) -> Escalated:
    """Sample and score a window.

    Args:
        method: One that escalates.
        demonstrations: Of each group of the window; of one token or none, the group is sampled at once.
        group: Rows per prompt, G.
        first: The number of this process's first row.
        count: This process's rows.
        sample: Samples the rows; all processes call it equally often. One that has no row in a block asks for its first
            once more, whose completion is thrown away: sharded models need its forward passes.
        score: Scores the rows at these places, given the completions of all of this process's; returns the rewards of
            the whole window, whatever stands for rows that were not scored yet.
    """
    window = Escalated([[] for _ in range(count)], None, [0] * count, [False] * count, [0] * len(demonstrations))
    rewards = [math.nan] * (len(demonstrations) * group)
    number, over = 0, set[int]()
    while due := _due(method, demonstrations, rewards, group, number, over):
        mine = [row for row in range(first, first + count) if row in due]
        again = max(window._times.get(row, 0) for row in due)
        begun = [_beginning(due[row], demonstrations[row // group]) for row in mine]
        places = [row - first for row in mine]
        completions, logps = sample(Ask(places or [0], begun or [[]], again, idle=not places))
        if logps is not None and window.logps is None:
            window.logps = [[] for _ in range(count)]
        for at, place in enumerate(places):
            window.completions[place], window.begun[place] = completions[at], len(begun[at])
            window.trained[place] = due[mine[at]].trained == mine[at] % group
            if window.logps is not None and logps is not None:
                window.logps[place] = logps[at]
        for row, reward in enumerate(score(places, window.completions)):
            rewards[row] = reward if row in due else rewards[row]
        for row, block in due.items():
            window.again += window._times.get(row, 0) > 0
            window._times[row] = window._times.get(row, 0) + 1
            window.levels[row // group] = max(window.levels[row // group], block.level)
        number += 1
    return window


def _due(
    method: Method, demonstrations: Sequence[Ids], rewards: Sequence[float], group: int, number: int, over: set[int]
) -> dict[int, Block]:
    """The rows of the window that come next, each with its block; a group that has none is put into `over` for good."""
    due: dict[int, Block] = {}
    for place, ids in enumerate(demonstrations):
        if place in over:
            continue
        start = place * group
        if len(ids) > 1:
            block = method.next_block(number, tuple(rewards[start : start + group]))
        else:
            block = None if number else Block(range(group))
        if block is None:
            over.add(place)
        else:
            due |= {start + row: block for row in block.rows}
    return due


def _beginning(block: Block, ids: Ids) -> Ids:
    return ids[: block.beginning(len(ids))]
