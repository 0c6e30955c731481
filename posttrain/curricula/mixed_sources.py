"""Sources in given proportions, with a cap on each: how the mixes of Tulu 3 are made.

After Tulu 3 (arXiv 2411.15124), whose mixes take so many rows of each source: a source's cap is drawn once, by the
seed, and the rest of it is left out. Without shares all that is kept is shuffled each epoch, so that a source comes in
proportion to its size. With shares the next prompt is of the source that is furthest behind its share, so that after n
draws a source has had its share of n to within one for each other source; a source goes through its prompts in a new
order each time.

Deviation. Tulu trains on a mix that was made before; here it is a mix of draws, so that a small source may come again
while a large one has not come whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from posttrain.curricula.base import Curriculum, Outcome, State, Table
from posttrain.curricula.order import permutation, reshuffled
from posttrain.errors import DataError


@dataclass(frozen=True, kw_only=True)
class MixedSources(Curriculum):
    """Caps and shares by source.

    Args:
        source: The column that says which source a prompt is from; `None` takes `source`, or the `task` of a mixture.
        caps: Most prompts of a source, by its name; one that is not named is taken whole, and 0 leaves it out.
        shares: What each source counts in the draws, by its name; all of them, or none.
    """

    name: Literal["mixed_sources"] = "mixed_sources"
    caps: dict[str, Annotated[int, Field(ge=0)]] = field(default_factory=dict)
    shares: dict[str, Annotated[float, Field(gt=0)]] = field(default_factory=dict)
    by_source: ClassVar[bool] = True
    __pydantic_config__ = {"extra": "forbid"}

    def check(self, table: Table) -> None:
        """Sources that are named are there, and something is left."""
        sources = self.sources(table)
        for key, named in (("caps", self.caps), ("shares", self.shares)):
            if unknown := [name for name in named if name not in sources]:
                raise DataError(
                    f"no prompt is of the source {unknown[0]!r}",
                    expected=f"some of {', '.join(list(sources)[:12])}",
                    where=f"curriculum.{key}",
                    fix="correct the name, or leave it out",
                )
        kept = {name for name, rows in self.kept(table, 0).items() if rows}
        if not kept or (self.shares and set(self.shares) != kept):
            raise DataError(
                f"shares for {', '.join(self.shares) or 'none'}, and prompts of {', '.join(sorted(kept)) or 'none'}",
                expected="a share for each source that is not left out",
                where="curriculum.shares",
                fix="name all of them, or leave shares out",
            )

    def start(self, table: Table, seed: int) -> State:
        """Nothing was taken of any source."""
        return {**super().start(table, seed), "taken": dict.fromkeys(self.sources(table), 0)}

    def kept(self, table: Table, seed: int) -> dict[str, list[int]]:
        """The prompts of each source under its cap."""
        return table.once(("mixed_sources", seed), lambda: self._kept(table, seed))

    def _kept(self, table: Table, seed: int) -> dict[str, list[int]]:
        kept = {}
        for name, rows in self.sources(table).items():
            cap = self.caps.get(name, len(rows))
            chosen = permutation(f"cap:{name}:{seed}", len(rows))[:cap] if cap < len(rows) else range(len(rows))
            kept[name] = [rows[place] for place in sorted(chosen)]
        return kept

    def draw(self, table: Table, state: State, count: int) -> list[int]:
        """The next of all that is kept, or of the source that is furthest behind."""
        kept, seed = self.kept(table, state["seed"]), state["seed"]
        if not self.shares:
            rows = sorted(row for some in kept.values() for row in some)
            return reshuffled(rows, "prompts", seed, state["drawn"], count)
        taken, every, drawn = dict(state["taken"]), sum(self.shares.values()), []
        begun = sum(taken.values())  # fewer than `drawn` where the stage began without these shares
        for number in range(begun, begun + count):
            behind = {name: share / every * (number + 1) - taken[name] for name, share in self.shares.items()}
            name = max(behind, key=behind.__getitem__)
            drawn += reshuffled(kept[name], f"mixed:{name}", seed, taken[name], 1)
            taken[name] += 1
        return drawn

    def observe(self, table: Table, state: State, outcomes: Sequence[Outcome]) -> State:
        """How many were taken of each source."""
        values, taken = table.columns[self.column(table)], dict(state["taken"])
        for outcome in outcomes:
            taken[str(values[outcome.row])] += 1
        return {**super().observe(table, state, outcomes), "taken": taken}

    def told(self, table: Table, state: State, rows: Sequence[int]) -> dict[str, Any]:
        """Prompts that are kept of each source, and its share of the draws."""
        kept = {name: len(some) for name, some in self.kept(table, state["seed"]).items()}
        weights: Mapping[str, float] = self.shares or kept
        return {"kept": kept, "shares": {name: round(of / sum(weights.values()), 6) for name, of in weights.items()}}

    @staticmethod
    def reason(window: Mapping[str, Any], place: int) -> str:
        """Its source's share."""
        source = window["sources"][place]
        return (
            f"source {source} has {window['shares'][source]:.1%} of the draws, with {window['kept'][source]:,} prompts"
        )
