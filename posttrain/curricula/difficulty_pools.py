"""Pools of prompts by what their last rollouts gave, and a share of each window from each pool.

After prime-rl's buffer of difficulty pools (`easy_fraction`, `hard_fraction`): a prompt is `easy` if the mean reward of
its last rollouts reached one threshold, `hard` if it did not get above another, else `normal`, where all begin. Easy
and hard ones are not given up: they come back at their share, and a policy that has changed finds them changed.

Deviations. Mean rewards are shares of the best that there is to score. Prime-rl takes whole numbers of easy and hard
prompts of each batch, rounded down; here the pool of each draw follows from its number in the stage (a Weyl sequence),
which keeps the shares in small windows, too. Where a pool is used up, normal prompts take its place, and where there
are none of these, whatever there is. The defaults are ours: a pool of prompts that all rollouts solve, one of those
that none does, and a tenth of the draws from each.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from posttrain.curricula.base import Curriculum, Outcome, State, Table
from posttrain.curricula.packed import packed, unpacked
from posttrain.errors import ConfigError

Share = Annotated[float, Field(ge=0, le=1)]
POOLS = ("normal", "easy", "hard")
"""By the number that the state has of them."""

GOLDEN = 0.6180339887498949
"""The fraction whose multiples are spread most evenly over [0, 1)."""


@dataclass(frozen=True, kw_only=True)
class DifficultyPools(Curriculum):
    """Three pools.

    Args:
        easy_fraction: Share of the draws from the easy pool.
        hard_fraction: Share of the draws from the hard pool.
        easy_threshold: The least solve rate of the last rollouts that makes a prompt easy.
        hard_threshold: The highest one that makes it hard.
        source: As for every curriculum; for the record alone.
    """

    name: Literal["difficulty_pools"] = "difficulty_pools"
    easy_fraction: Share = 0.1
    hard_fraction: Share = 0.1
    easy_threshold: Share = 1.0
    hard_threshold: Share = 0.0
    adaptive: ClassVar[bool] = True
    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.easy_fraction + self.hard_fraction > 1.0:
            raise ConfigError(
                f"easy_fraction: {self.easy_fraction:g}, and hard_fraction: {self.hard_fraction:g}",
                expected="no more than 1 together",
                where="curriculum.easy_fraction",
            )
        if self.hard_threshold >= self.easy_threshold:
            raise ConfigError(
                f"hard_threshold: {self.hard_threshold:g}, and easy_threshold: {self.easy_threshold:g}",
                expected="the former below the latter",
                where="curriculum.hard_threshold",
            )

    def start(self, table: Table, seed: int) -> State:
        """All are normal."""
        pools = packed(np.zeros(table.size, dtype="u1"))
        return {**super().start(table, seed), "size": table.size, "pools": pools}

    def due(self, seed: int, number: int) -> int:
        """The pool that the draw of a number is to be from."""
        start = random.Random(f"pools:{seed}").random()
        at = (start + number * GOLDEN) % 1.0
        return 1 if at < self.easy_fraction else 2 if at < self.easy_fraction + self.hard_fraction else 0

    def draw(self, table: Table, state: State, count: int) -> list[int]:
        """From the pool that is due, in an order of the window's own."""
        pools = unpacked(state["pools"], "u1")
        waiting: dict[int, Iterator[int]] = {}
        left: list[int] = []
        drawn: list[int] = []
        for number in range(state["drawn"], state["drawn"] + count):
            if not any(left):  # at first, and in a window that is larger than the data set
                orders = [self._order(table, pools, pool, state, len(drawn)) for pool in range(len(POOLS))]
                waiting, left = dict(enumerate(map(iter, orders))), list(map(len, orders))
            due = next(pool for pool in (self.due(state["seed"], number), 0, 1, 2) if left[pool])
            drawn.append(int(next(waiting[due])))
            left[due] -= 1
        return drawn

    def _order(self, table: Table, pools: np.ndarray, pool: int, state: State, after: int) -> np.ndarray:
        """The prompts of a pool, shuffled; once a window, however often it draws."""

        def make() -> np.ndarray:
            rng = np.random.default_rng([state["seed"], state["drawn"], after, pool])
            return rng.permutation(np.flatnonzero(pools == pool))

        return table.latest(f"pool {pool}", (state["seed"], state["drawn"], after, state["pools"]), make)

    def observe(self, table: Table, state: State, outcomes: Sequence[Outcome]) -> State:
        """The prompts in the pools that their rollouts put them into."""
        pools = unpacked(state["pools"], "u1")
        for outcome in outcomes:
            if outcome.rate is not None:
                pools[outcome.row] = self.pool(outcome.rate)
        return {**super().observe(table, state, outcomes), "pools": packed(pools)}

    def pool(self, rate: float) -> int:
        """The number of the pool of a solve rate."""
        slack = 1e-6  # of rewards that were rounded
        return 1 if rate >= self.easy_threshold - slack else 2 if rate <= self.hard_threshold + slack else 0

    def told(self, table: Table, state: State, rows: Sequence[int]) -> dict[str, Any]:
        """How many prompts each pool has, and the pools of those that were drawn."""
        pools = unpacked(state["pools"], "u1")
        sizes = {name: int((pools == number).sum()) for number, name in enumerate(POOLS)}
        normal = round(1.0 - self.easy_fraction - self.hard_fraction, 6)
        shares = {"normal": normal, "easy": self.easy_fraction, "hard": self.hard_fraction}
        return {"pools": sizes, "shares": shares, "values": [POOLS[pools[row]] for row in rows]}

    @staticmethod
    def reason(window: Mapping[str, Any], place: int) -> str:
        """Its pool."""
        pool = window["values"][place]
        due = window["shares"][pool]
        return f"from the {window['pools'][pool]:,} {pool} prompts, which are due in {due:.0%} of the draws"
