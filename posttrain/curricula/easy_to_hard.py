"""Prompts from easy to hard: by how often a model solves them before it is trained on them, or by a column.

Source: SARI, arXiv 2504.15900: items that the base model never solves are dropped, the others are ordered by its pass
rate. Prompts that are never solved teach GRPO nothing, for all completions of a group fail. The paper does not say how
it goes on after the last prompt; here the order begins anew. By a column nothing is left out: it says what is easy, not
what is solved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from posttrain.curricula.base import Curriculum, State, Table
from posttrain.curricula.order import cycled
from posttrain.errors import ConfigError, DataError


def easy_to_hard(rates: Sequence[float]) -> list[int]:
    """The places of pass rates above 0, from the highest to the lowest, equal ones as they stood."""
    return sorted((place for place, rate in enumerate(rates) if rate > 0), key=lambda place: -rates[place])


@dataclass(frozen=True, kw_only=True)
class EasyToHard(Curriculum):
    """One order of all prompts.

    Args:
        by: A column of numbers, the easiest lowest. `None`: pass rates are measured once before the stage, and prompts
            that were never solved are left out.
        model: Whose pass rates: the recipe's own (`base`), or the one that the warm-up left (`warmup`).
        samples: Completions per prompt for these; 1 takes the greedy one.
        source: As for every curriculum; for the record alone.
    """

    name: Literal["easy_to_hard"] = "easy_to_hard"
    by: str | None = None
    model: Literal["base", "warmup"] = "base"
    samples: Annotated[int, Field(ge=1)] = 8
    measures: ClassVar[bool] = True
    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.by is not None and (self.model, self.samples) != ("base", 8):
            raise ConfigError(
                f"by: {self.by}, and model: {self.model}, samples: {self.samples}",
                expected="one measure of what is easy: a column, or pass rates, which model and samples are for",
                where="curriculum",
                fix="leave model and samples out, or by",
            )

    @property
    def completions(self) -> int:
        """None where a column says what is easy."""
        return 0 if self.by else self.samples

    def wanted(self) -> tuple[str, ...]:
        """The column that says what is easy."""
        return () if self.by is None else (self.by,)

    def check(self, table: Table) -> None:
        """Pass rates, or a column of numbers."""
        if self.by is not None and self.by not in table.numbers:
            kinds = sorted({type(value).__name__ for value in table.columns[self.by]})
            raise DataError(
                f"the column {self.by!r} has values of the kind {', '.join(kinds)}",
                expected="numbers, the easiest lowest",
                where="curriculum.by",
                fix="name a column of numbers",
            )
        if self.by is None and not easy_to_hard(table.rates or ()):
            raise never_solved(table)

    def order(self, table: Table) -> list[int]:
        """All prompts that are drawn, the easiest first, equal ones as they stand in the table."""
        if self.by is None:
            return easy_to_hard(table.rates or ())
        column = table.numbers[self.by]
        return sorted(range(table.size), key=column.__getitem__)

    def draw(self, table: Table, state: State, count: int) -> list[int]:
        """The next in the order."""
        return cycled(self._order(table), state["drawn"], count)

    def told(self, table: Table, state: State, rows: Sequence[int]) -> dict[str, Any]:
        """The prompts' places in the order, and what they stand there by."""
        order = self._order(table)
        values = table.rates if self.by is None else table.columns[self.by]
        assert values is not None
        places = [(state["drawn"] + number) % len(order) for number in range(len(rows))]
        return {"by": self.by, "of": len(order), "places": places, "values": [values[row] for row in rows]}

    @staticmethod
    def reason(window: Mapping[str, Any], place: int) -> str:
        """Its place in the order."""
        by = "a pass rate of" if window["by"] is None else str(window["by"])
        return f"number {window['places'][place] + 1} of {window['of']} from easy to hard, with {by} " + (
            f"{window['values'][place]:g}"
        )

    def _order(self, table: Table) -> list[int]:
        return table.once(("easy_to_hard", self.by), lambda: self.order(table))


def never_solved(table: Table) -> DataError:
    """The error of prompts none of which was ever solved, or whose pass rates are not known."""
    if table.rates is None:
        return DataError(
            "the pass rates of the prompts are not known",
            expected="a rate for each prompt: a run measures them before the stage; as a library hand them in",
            where="curriculum",
            fix="pass curriculum=Sampler(curriculum, curriculum.table(rows, rows.column_names, rates)), or order by a "
            "column with `by`",
        )
    return DataError(
        f"none of the {table.size} prompts was ever solved",
        expected="prompts of which the model solves some",
        where="curriculum",
        fix="use easier prompts or more samples, or measure the warmed-up model: hybrid.curriculum.model=warmup",
    )
