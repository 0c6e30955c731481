"""What `exp3` and `ucb1` share: sources whose gradients point where the target's points are drawn more often.

Source: "Improving Few-Shot Generalization by Exploring and Exploiting Auxiliary Data" (FLAD), arXiv 2302.00674, and the
authors' code. The reward of a source is the cosine between the gradient of the loss on its rows and the gradient of the
loss on the target's rows, over the LM head alone; here over the adapter, where there is one.

Deviations. A play is a demonstration, so that no cut of a step into micro-batches changes the draws; the bounds count
`batch` of them as one, where the authors draw a micro-batch of one source at a time. The gradients of a step's rows are
taken after the step, by the weights that the target's gradient is taken by, and in a pass of their own: the authors
keep those of the step itself, of the weights before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from posttrain.curricula.base import DIGITS, Asked, Curriculum, Outcome, State, Table
from posttrain.curricula.order import permutation, reshuffled
from posttrain.errors import DataError

GRADIENTS = "gradients"
"""What these ask for: by source, the cosine of its rows' gradient and the target's."""


@dataclass(frozen=True, kw_only=True)
class FLAD(Curriculum):
    """Base of the two: which rows are the target, how rows of a source come, and what is asked after a step.

    Args:
        source: The column that says which source a demonstration is from; `None` takes `source`, or the `task` of a
            mixture.
        target: The sources whose gradient the others are compared with; `None` takes all.
        held_out: Demonstrations of each of these that are never trained on, whose gradient is the target's. A target
            source that has no more is not drawn at all.
        batch: Demonstrations that count as one play.
    """

    target: tuple[str, ...] | None = None
    held_out: Annotated[int, Field(ge=1)] = 16
    batch: Annotated[int, Field(ge=1)] = 8
    by_source: ClassVar[bool] = True
    asks: ClassVar[str | None] = GRADIENTS

    def check(self, table: Table) -> None:
        """The target is there, and at least two sources are left to choose from."""
        sources = self.sources(table)
        if unknown := [name for name in self.target or () if name not in sources]:
            raise DataError(
                f"no demonstration is of the source {unknown[0]!r}",
                expected=f"some of {', '.join(list(sources)[:12])}",
                where="curriculum.target",
                fix="correct the name, or leave it out",
            )
        if len(self.kept(table, 0)) < 2:
            sizes = ", ".join(f"{name} ({len(rows):,})" for name, rows in list(sources.items())[:12])
            raise DataError(
                f"the sources {sizes}, of which held_out: {self.held_out} holds back the target",
                expected="at least two sources with demonstrations left to draw",
                where="curriculum.held_out",
                fix="set it lower, name a target, or name another column with `source:`",
            )

    def held(self, table: Table, seed: int) -> list[int]:
        """The target's rows, which are not drawn."""
        return [row for rows in self._held(table, seed).values() for row in rows]

    def kept(self, table: Table, seed: int) -> dict[str, list[int]]:
        """The rows of each source that are drawn; sources without any are left out."""

        def make() -> dict[str, list[int]]:
            held = self._held(table, seed)
            left = {name: sorted({*rows} - {*held.get(name, ())}) for name, rows in self.sources(table).items()}
            return {name: rows for name, rows in left.items() if rows}

        return table.once(("flad kept", self.target, self.held_out, seed), make)

    def _held(self, table: Table, seed: int) -> dict[str, list[int]]:
        sources = self.sources(table)

        def chosen(name: str, rows: list[int]) -> list[int]:
            return sorted(rows[at] for at in permutation(f"held out:{name}:{seed}", len(rows))[: self.held_out])

        return {name: chosen(name, sources[name]) for name in (self.target or sources)}

    def start(self, table: Table, seed: int) -> State:
        """Nothing was drawn of any source, and no gradient is known."""
        sources = {name: {"taken": 0, **self.fresh()} for name in self.kept(table, seed)}
        return {**super().start(table, seed), "sources": sources, "last": {}, "rounds": 0}

    def fresh(self) -> dict[str, Any]:
        """What is known of a source at first."""
        return {"value": None}

    def draw(self, table: Table, state: State, count: int) -> list[int]:
        """A source for each row, then its next row."""
        kept, seed, names = self.kept(table, state["seed"]), state["seed"], list[str]()
        begun = {name: of["taken"] for name, of in state["sources"].items()}
        taken = dict(begun)
        for number in range(state["drawn"], state["drawn"] + count):
            names.append(self.choose(state, taken, number))
            taken[names[-1]] += 1
        ready = {
            name: iter(reshuffled(kept[name], f"{self.name}:{name}", seed, begun[name], taken[name] - begun[name]))
            for name in set(names)
        }
        return [next(ready[name]) for name in names]

    def choose(self, state: State, taken: Mapping[str, int], number: int) -> str:
        """The source of the draw of a number, after so many rows of each."""
        raise NotImplementedError

    def plays(self, taken: Mapping[str, int]) -> float:
        """How many plays as many rows are."""
        return sum(taken.values()) / self.batch

    def observe(self, table: Table, state: State, outcomes: Sequence[Outcome]) -> State:
        """What was drawn of each source, whose gradients are to be asked for.

        A replay under other settings may bring rows of a source that these do not draw: nothing is known of it.
        """
        column, last = table.columns[self.column(table)], dict[str, list[int]]()
        sources = dict(state["sources"])
        for outcome in outcomes:
            if (name := str(column[outcome.row])) in sources:
                last.setdefault(name, []).append(outcome.row)
        sources |= {name: {**sources[name], "taken": sources[name]["taken"] + len(of)} for name, of in last.items()}
        return {**super().observe(table, state, outcomes), "sources": sources, "last": dict(sorted(last.items()))}

    def ask(self, table: Table, state: State) -> Asked | None:
        """The gradients of the rows that were trained on last, beside the target's."""
        return Asked(GRADIENTS, state["last"], self.held(table, state["seed"])) if state["last"] else None

    def passes(self, table: Table, steps: int, rows: int = 0) -> int:
        """Those of a step's rows and of the target's, between any two steps."""
        return max(steps - 1, 0) * (len(self.held(table, 0)) + rows)

    def take(self, table: Table, state: State, measured: Mapping[str, float]) -> State:
        """The state with the cosines of the sources that were measured."""
        seen = {name: round(value, DIGITS) for name, value in measured.items()}
        sources = {name: self.learned(state, name, of, seen.get(name)) for name, of in state["sources"].items()}
        return {**state, "sources": sources, "last": {}, "rounds": state["rounds"] + 1}

    def learned(self, state: State, name: str, of: Mapping[str, Any], value: float | None) -> dict[str, Any]:
        """A source with a new cosine; `None` where it had no row."""
        raise NotImplementedError
