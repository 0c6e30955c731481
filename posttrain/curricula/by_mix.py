"""What curricula of demonstrations share that draw sources by a mix and go by validation losses.

A part of each source is held out of the warm-up, drawn once by the seed, and its loss is measured when the curriculum
asks for it. Between two changes of the mix a source comes in its share to within one demonstration for each other
source: the next is of the source that is furthest behind. Each source goes through its demonstrations in a new order
every time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from posttrain.curricula.base import DIGITS, Asked, Curriculum, Outcome, State, Table
from posttrain.curricula.order import permutation, reshuffled
from posttrain.errors import DataError


def softmax(values: Mapping[str, float]) -> dict[str, float]:
    """exp(v), normalised."""
    top = max(values.values())
    powers = {name: math.exp(value - top) for name, value in values.items()}
    total = sum(powers.values())
    return {name: power / total for name, power in powers.items()}


@dataclass(frozen=True, kw_only=True)
class ByMix(Curriculum):
    """A mix of sources that validation losses move.

    Args:
        source: The column of sources; `None` takes `source`, or the `task` of a mixture.
        update_steps: Steps from one change of the mix to the next.
        held_out: Demonstrations of each source that are not trained on, for its validation loss.
    """

    update_steps: Annotated[int, Field(ge=1)] = 100
    held_out: Annotated[int, Field(ge=1)] = 32
    by_source: ClassVar[bool] = True
    asks: ClassVar[str | None] = "losses"

    def check(self, table: Table) -> None:
        """Several sources, with enough demonstrations."""
        sources = self.sources(table)
        if len(sources) < 2:
            raise DataError(
                f"all demonstrations are of the source {next(iter(sources), 'none')}",
                expected="two sources or more: the curriculum mixes them",
                where="curriculum.source",
                fix="name a column that tells them apart, or leave the curriculum out",
            )
        for name in self.validated(table):
            if len(sources[name]) <= self.held_out:
                raise DataError(
                    f"the source {name} has {len(sources[name])} demonstrations, and {self.held_out} are to be held "
                    "out for its validation loss",
                    expected="some that are left to train on",
                    where="curriculum.held_out",
                    fix=f"set it to {max(1, len(sources[name]) // 5)}, or give more demonstrations of it",
                )

    def start(self, table: Table, seed: int) -> State:
        """Nothing was taken of any source, and nothing measured."""
        names = list(self.sources(table))
        zeros = dict.fromkeys(names, 0.0)
        more = {"steps": 0, "measured_at": None, "taken": dict.fromkeys(names, 0), "credit": zeros}
        return {**super().start(table, seed), **more}

    def weights(self, table: Table, state: State) -> dict[str, float]:
        """The share of each source in the next draw."""
        raise NotImplementedError

    def validated(self, table: Table) -> list[str]:
        """The sources whose losses it goes by."""
        return list(self.sources(table))

    def measures_after(self, steps: int, sources: int) -> bool:
        """Whether losses are measured when so many steps are done, of so many sources."""
        return steps > 0 and steps % self.update_steps == 0

    def first_change(self, table: Table) -> int:
        """Steps that are done when what was measured first moves the mix."""
        return self.update_steps

    def passes(self, table: Table, steps: int, rows: int = 0) -> int:
        """Passes of held-out demonstrations through the model that a stage of so many steps asks for."""
        times = sum(self.measures_after(done, len(self.sources(table))) for done in range(steps))
        return times * self.held_out * len(self.validated(table))

    def ask(self, table: Table, state: State) -> Asked | None:
        """The losses of held-out demonstrations, where they are due and not known yet."""
        steps = state["steps"]
        if state["measured_at"] == steps or not self.measures_after(steps, len(self.sources(table))):
            return None
        held = self.held(table, state["seed"])
        return Asked("losses", {name: held[name] for name in self.validated(table)})

    def take(self, table: Table, state: State, measured: Mapping[str, float]) -> State:
        """Note that they are."""
        return {**state, "measured_at": state["steps"]}

    def draw(self, table: Table, state: State, count: int) -> list[int]:
        """The next of the sources that are furthest behind their shares."""
        weights, credit = self.weights(table, state), dict(state["credit"])
        names = [_next_of(credit, weights) for _ in range(count)]
        trained, seed = self.trained(table, state["seed"]), state["seed"]
        ready = {
            name: iter(reshuffled(trained[name], f"mix:{name}", seed, state["taken"][name], names.count(name)))
            for name in set(names)
        }
        return [next(ready[name]) for name in names]

    def observe(self, table: Table, state: State, outcomes: Sequence[Outcome]) -> State:
        """A step is done: how many were taken of each source, and how far each is behind."""
        weights, credit, taken = self.weights(table, state), dict(state["credit"]), dict(state["taken"])
        values = table.columns[self.column(table)]
        for outcome in outcomes:
            _next_of(credit, weights)  # what these weights would have drawn, if the outcomes are of others
            taken[str(values[outcome.row])] += 1
        more = {"steps": state["steps"] + 1, "taken": taken, "credit": credit}
        return {**super().observe(table, state, outcomes), **more}

    def told(self, table: Table, state: State, rows: Sequence[int]) -> dict[str, Any]:
        """The mix."""
        return {"mix": {name: round(share, DIGITS) for name, share in self.weights(table, state).items()}}

    def held(self, table: Table, seed: int) -> dict[str, list[int]]:
        """Of each source whose loss it goes by the demonstrations that are held out."""

        def chosen() -> dict[str, list[int]]:
            rows = self.sources(table)
            places = {n: permutation(f"held:{n}:{seed}", len(rows[n]))[: self.held_out] for n in self.validated(table)}
            return {name: sorted(rows[name][place] for place in some) for name, some in places.items()}

        return table.once(("held out", self.column(table), self.held_out, *self.validated(table), seed), chosen)

    def trained(self, table: Table, seed: int) -> dict[str, list[int]]:
        """Of each source the demonstrations that are not."""

        def rest() -> dict[str, list[int]]:
            held = {row for some in self.held(table, seed).values() for row in some}
            return {name: [row for row in rows if row not in held] for name, rows in self.sources(table).items()}

        return table.once(("trained", self.column(table), self.held_out, *self.validated(table), seed), rest)


def _next_of(credit: dict[str, float], weights: Mapping[str, float]) -> str:
    """Give every source its share of one draw, and the draw to the one that has most."""
    for each, share in weights.items():
        credit[each] += share
    name = max(credit, key=credit.__getitem__)
    credit[name] -= 1.0
    return name
