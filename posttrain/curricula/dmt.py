"""DMT: specialised sources first, then the general ones with a small share of the specialised mixed in.

Source: "How Abilities in Large Language Models are Affected by Supervised Fine-tuning Data Composition", arXiv
2310.05492, dual-stage mixed fine-tuning: stage 1 is on all specialised data (maths, code), stage 2 on all general data
and a share k of the specialised, which keeps what stage 1 gave. Of each specialised source floor(k * its size) prompts
come again, the same ones throughout, drawn by the seed; k = 0 is one after the other.

Deviations. The paper is about SFT; here it orders the prompts of rollouts. How often it goes over each stage's data is
not known to us for sure: stage 1 is gone over `epochs` times, stage 2 until the run ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from posttrain.curricula.base import Curriculum, State, Table
from posttrain.curricula.order import permutation, reshuffled
from posttrain.errors import DataError


@dataclass(frozen=True, kw_only=True)
class DMT(Curriculum):
    """Two stages.

    Args:
        special: The names of the specialised sources.
        k: The share of these that is mixed into the second stage.
        epochs: How often the first stage goes over them.
        source: The column that says which source a prompt is from; `None` takes `source`, or the `task` of a mixture.
    """

    name: Literal["dmt"] = "dmt"
    special: tuple[str, ...] = ()
    k: Annotated[float, Field(ge=0, le=1)] = 1 / 256
    epochs: Annotated[int, Field(ge=1)] = 1
    by_source: ClassVar[bool] = True
    __pydantic_config__ = {"extra": "forbid"}

    def check(self, table: Table) -> None:
        """There are prompts for both stages."""
        sources = self.sources(table)
        unknown = [name for name in self.special if name not in sources]
        if unknown or not self.special or set(self.special) >= set(sources):
            raise DataError(
                f"special: {', '.join(self.special) or 'none'}, of the sources {', '.join(list(sources)[:12])}",
                expected="some of the sources, but not all: the others are general",
                where="curriculum.special",
                fix="name the sources that come first",
            )

    def stages(self, table: Table, seed: int) -> tuple[list[int], list[int]]:
        """The prompts of either stage."""
        sources = self.sources(table)
        first = sorted(row for name in self.special for row in sources[name])
        second = [row for name, rows in sources.items() if name not in self.special for row in rows]
        for name in self.special:
            rows = sources[name]
            again = permutation(f"dmt:{name}:{seed}", len(rows))[: int(self.k * len(rows) + 1e-9)]  # 0.29 of 100 is 29
            second += [rows[place] for place in again]
        return first, sorted(second)

    def draw(self, table: Table, state: State, count: int) -> list[int]:
        """The next of the stage, in a new order each epoch."""
        first, second = self._stages(table, state)
        begin, end, seed = state["drawn"], self.epochs * len(first), state["seed"]
        before = max(0, min(count, end - begin))
        drawn = reshuffled(first, "dmt first", seed, begin, before)
        return drawn + reshuffled(second, "dmt second", seed, begin + before - end, count - before)

    def told(self, table: Table, state: State, rows: Sequence[int]) -> dict[str, Any]:
        """Which stage each draw is of, and how many prompts the stages have."""
        first, second = self._stages(table, state)
        end = self.epochs * len(first)
        return {
            "stages": [len(first), len(second)],
            "values": [1 if state["drawn"] + number < end else 2 for number in range(len(rows))],
        }

    @staticmethod
    def reason(window: Mapping[str, Any], place: int) -> str:
        """Its stage."""
        stage = window["values"][place]
        of = "specialised sources" if stage == 1 else "general sources and a share of the specialised"
        source = window["sources"][place]
        return f"source {source}, by chance among the {window['stages'][stage - 1]:,} of stage {stage}: {of}"

    def _stages(self, table: Table, state: State) -> tuple[list[int], list[int]]:
        return table.once(("dmt", state["seed"]), lambda: self.stages(table, state["seed"]))
