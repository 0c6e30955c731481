"""UCB1 over sources: always the one whose gradient may agree most with the target's.

Source: UCB1-FLAD, arXiv 2302.00674, and the authors' code. The next source is the one with the highest

    r_d + sqrt(2 ln t / n_d)

r_d being a moving mean of the cosine between its gradient and the target's, n_d its plays and 1 more, t all plays and
one for each source. A play is `batch` demonstrations, of which each is drawn anew. Before the first step `batch` rows
of each source are compared with the target. What this has in common with `exp3`, and where both deviate, is in `flad`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from posttrain.curricula.base import DIGITS, Asked, State, Table
from posttrain.curricula.flad import FLAD, GRADIENTS


def bound(value: float, plays: float, of_source: float) -> float:
    """The upper confidence bound of a source's mean after so many plays of all sources and of this one."""
    return value + math.sqrt(2 * math.log(plays) / of_source)


@dataclass(frozen=True, kw_only=True)
class UCB1(FLAD):
    """The highest bound.

    Args:
        beta: What a new cosine counts against the mean of those before.
    """

    name: Literal["ucb1"] = "ucb1"
    beta: Annotated[float, Field(gt=0, le=1)] = 0.1
    __pydantic_config__ = {"extra": "forbid"}

    def ask(self, table: Table, state: State) -> Asked | None:
        """At first some rows of each source; then what was trained on last."""
        if state["rounds"]:
            return super().ask(table, state)
        seed = state["seed"]
        return Asked(
            GRADIENTS,
            {name: rows[: self.batch] for name, rows in self.kept(table, seed).items()},
            self.held(table, seed),
        )

    def passes(self, table: Table, steps: int, rows: int = 0) -> int:
        """With those before the first step."""
        first = self.ask(table, self.start(table, 0))
        assert first is not None
        return super().passes(table, steps, rows) + sum(map(len, first.rows.values())) + len(first.target)

    def choose(self, state: State, taken: Mapping[str, int], number: int) -> str:
        """The highest bound, the first of equal ones."""
        bounds = self._bounds(state, taken)
        return max(bounds, key=lambda name: bounds[name])

    def learned(self, state: State, name: str, of: Mapping[str, Any], value: float | None) -> dict[str, Any]:
        """Its mean, which the new cosine moves."""
        if value is None:
            return dict(of)
        return {**of, "value": value if of["value"] is None else (1 - self.beta) * of["value"] + self.beta * value}

    def told(self, table: Table, state: State, rows: Sequence[int]) -> dict[str, Any]:
        """The mean of each source as the draws began, and how far its bound lies above."""
        taken = {name: of["taken"] for name, of in state["sources"].items()}
        bounds = self._bounds(state, taken)
        return {
            "chances": {
                name: {
                    "value": round(_known(of), DIGITS),
                    "bonus": round(bounds[name] - _known(of), DIGITS),
                    "taken": of["taken"],
                }
                for name, of in state["sources"].items()
            }
        }

    @staticmethod
    def reason(window: Mapping[str, Any], place: int) -> str:
        """Its source's bound."""
        source = window["sources"][place]
        of = window["chances"][source]
        return (
            f"source {source}, whose bound was the highest at this row: a mean cosine of {of['value']:.3f} with the "
            f"target's gradient and a bonus of {of['bonus']:.3f} as the step began, after {of['taken']:,} rows of it"
        )

    def _bounds(self, state: State, taken: Mapping[str, int]) -> dict[str, float]:
        plays = self.plays(taken) + len(taken)
        known = state["sources"]
        return {name: bound(_known(known[name]), plays, 1 + taken[name] / self.batch) for name in taken}


def _known(of: Mapping[str, Any]) -> float:
    return 0.0 if of["value"] is None else float(of["value"])
