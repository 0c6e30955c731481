"""Human curriculum: level by level, and within a level the topics by turns.

Source: "Instruction Tuning with Human Curriculum", arXiv 2310.09518 (CORGI): data ordered as a course is, from the
lower to the higher level of what is asked, interleaved over the subjects, did better than one subject after another.
Here the level is a column of numbers, the topic any column; within a topic prompts of one level come in a seeded order.
A topic that has fewer prompts on a level is through with it earlier.

Deviation. The paper goes once over its data; here the order begins anew at its end, as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, ClassVar, Literal

from posttrain.curricula.base import Curriculum, State, Table
from posttrain.curricula.order import cycled, permutation
from posttrain.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Human(Curriculum):
    """Levels in order, topics interleaved.

    Args:
        level: A column of numbers, the lowest first.
        source: The column of the topics; `None` takes `source`, or the `task` of a mixture.
    """

    name: Literal["human"] = "human"
    level: str = "level"
    by_source: ClassVar[bool] = True
    __pydantic_config__ = {"extra": "forbid"}

    def wanted(self) -> tuple[str, ...]:
        """The levels."""
        return (self.level,)

    def check(self, table: Table) -> None:
        """Levels are numbers."""
        if self.level not in table.numbers:
            raise DataError(
                f"the column {self.level!r} is not of numbers",
                expected="a level in each row, the lowest first",
                where="curriculum.level",
                fix="name another column",
            )

    def order(self, table: Table, seed: int) -> list[int]:
        """All prompts in their order."""
        levels, order = table.numbers[self.level], []
        topics = self.sources(table)
        for level in sorted(set(levels)):
            columns = []
            for topic, rows in topics.items():
                own = [row for row in rows if levels[row] == level]
                columns.append([own[place] for place in permutation(f"human:{topic}:{level}:{seed}", len(own))])
            order += [row for turn in zip_longest(*columns) for row in turn if row is not None]
        return order

    def draw(self, table: Table, state: State, count: int) -> list[int]:
        """The next in the order."""
        return cycled(self._order(table, state), state["drawn"], count)

    def told(self, table: Table, state: State, rows: Sequence[int]) -> dict[str, Any]:
        """The prompts' places and levels."""
        size = len(self._order(table, state))
        places = [(state["drawn"] + number) % size for number in range(len(rows))]
        return {"of": size, "places": places, "values": [table.numbers[self.level][row] for row in rows]}

    @staticmethod
    def reason(window: Mapping[str, Any], place: int) -> str:
        """Its level, and its topic's turn."""
        at, level = window["places"][place] + 1, window["values"][place]
        return f"number {at} of {window['of']}, on level {level:g}, where topic {window['sources'][place]} had its turn"

    def _order(self, table: Table, state: State) -> list[int]:
        return table.once(("human", state["seed"]), lambda: self.order(table, state["seed"]))
