"""RIF-RFT: prompts that a model never solves are dropped before the stage, all others are kept and shuffled.

Source: "rollout-based instance filtering", arXiv 2507.05386. Before it is trained on a task, the policy answers each
prompt some times; prompts with at least one answer that passes are kept, also those that all answers solve, which
dynamic sampling (DAPO) would drop.

Deviations. The paper's number of rollouts and its threshold are not known to us: here 8, and what the evaluation calls
a pass. It filters anew before each task of a sequence; here once, before the stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from posttrain.curricula.base import Curriculum, State, Table
from posttrain.curricula.easy_to_hard import never_solved
from posttrain.curricula.order import reshuffled


def kept(rates: Sequence[float]) -> list[int]:
    """The places of pass rates above 0."""
    return [place for place, rate in enumerate(rates) if rate > 0]


@dataclass(frozen=True, kw_only=True)
class RIF(Curriculum):
    """What can be solved, in a new order each epoch.

    Args:
        model: Whose pass rates: the recipe's own (`base`), or the one that the warm-up left (`warmup`).
        samples: Completions per prompt for these; 1 takes the greedy one.
        source: As for every curriculum; for the record alone.
    """

    name: Literal["rif"] = "rif"
    model: Literal["base", "warmup"] = "base"
    samples: Annotated[int, Field(ge=1)] = 8
    measures: ClassVar[bool] = True
    __pydantic_config__ = {"extra": "forbid"}

    def check(self, table: Table) -> None:
        """Pass rates, and some above 0."""
        if not kept(table.rates or ()):
            raise never_solved(table)

    def draw(self, table: Table, state: State, count: int) -> list[int]:
        """The next of this epoch's order."""
        return reshuffled(self._kept(table), "prompts", state["seed"], state["drawn"], count)

    def told(self, table: Table, state: State, rows: Sequence[int]) -> dict[str, Any]:
        """How many are kept, and the prompts' pass rates."""
        rates = table.rates or ()
        return {"of": len(self._kept(table)), "values": [rates[row] for row in rows]}

    @staticmethod
    def reason(window: Mapping[str, Any], place: int) -> str:
        """By chance, among those that are kept."""
        return f"shuffled among the {window['of']} prompts that were solved before; its pass rate was " + (
            f"{window['values'][place]:g}"
        )

    def _kept(self, table: Table) -> list[int]:
        return table.once("rif", lambda: kept(table.rates or ()))
