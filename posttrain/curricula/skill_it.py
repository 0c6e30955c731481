"""Skill-It: sources by the losses of what they help, along a graph of skills.

Source: "Skill-it! A Data-Driven Skills Framework for Understanding and Training Language Models", arXiv 2307.14430,
and the authors' code. A[i][j] is how much training on source i helps source j: 1 on the diagonal, `edge` where the
graph says so, else 0. The mix begins at w_i ~ exp(eta * sum_j A[i][j]). Every `update_steps` steps the validation
losses L are measured, and

    w_i ~ exp(eta * sum_j A[i][j] * S_j),        S = sum of the last `window` measured L

as in the code: a window, where the paper multiplies up all rounds. With `target` only the columns of these sources
count, and S is the mean of the window.

Deviations. The code's initial weights are uniform here. Its options are left out: eta over the sum of the losses,
losses over those at the start, halving the edges at each update. The graph is given, not learned. A loss is the mean
over the label tokens of the held-out demonstrations; the code's is the trainer's mean over batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from posttrain.curricula.base import State, Table
from posttrain.curricula.by_mix import ByMix, softmax
from posttrain.errors import DataError


def scores(graph: Mapping[str, Mapping[str, float]], losses: Mapping[str, float], eta: float) -> dict[str, float]:
    """eta * A @ losses: what the mix is the softmax of.

    Args:
        graph: A, by rows: of each source what it helps, and how much.
        losses: Of each source; one that is not there counts as 0.
        eta: The rate.
    """
    return {name: eta * sum(of.get(j, 0.0) * loss for j, loss in losses.items()) for name, of in graph.items()}


@dataclass(frozen=True, kw_only=True)
class SkillIt(ByMix):
    """A mix by the losses of what each source helps.

    Args:
        source: The column of sources; `None` takes `source`, or the `task` of a mixture.
        graph: Of a source those that it helps, beside itself; without any each source goes by its own loss alone.
        edge: How much one helps that the graph names.
        target: Sources whose losses count; `None` takes all.
        eta: The rate; the paper's are 0.5 and 0.1.
        window: Measurements whose losses are summed.
        update_steps: Steps from one measurement to the next.
        held_out: Demonstrations of each source that are not trained on, for its validation loss.
    """

    name: Literal["skill_it"] = "skill_it"
    graph: dict[str, tuple[str, ...]] = field(default_factory=dict)
    edge: Annotated[float, Field(gt=0, le=1)] = 0.5
    target: tuple[str, ...] | None = None
    eta: Annotated[float, Field(gt=0)] = 0.5
    window: Annotated[int, Field(ge=1)] = 3
    __pydantic_config__ = {"extra": "forbid"}

    def check(self, table: Table) -> None:
        """What is named is there."""
        sources = self.sources(table)
        in_graph = [*self.graph, *(name for helped in self.graph.values() for name in helped)]
        for key, names in (("graph", in_graph), ("target", self.target or ())):
            if unknown := [name for name in names if name not in sources]:
                raise DataError(
                    f"no demonstration is of the source {unknown[0]!r}",
                    expected=f"some of {', '.join(list(sources)[:12])}",
                    where=f"curriculum.{key}",
                    fix="correct the name, or leave it out",
                )
        super().check(table)

    def matrix(self, table: Table) -> dict[str, dict[str, float]]:
        """A, by rows, without what is 0."""
        return {name: {**dict.fromkeys(self.graph.get(name, ()), self.edge), name: 1.0} for name in self.sources(table)}

    def validated(self, table: Table) -> list[str]:
        """The targets, or all."""
        return [name for name in self.sources(table) if not self.target or name in self.target]

    def start(self, table: Table, seed: int) -> State:
        """Nothing was measured."""
        return {**super().start(table, seed), "losses": []}

    def take(self, table: Table, state: State, measured: Mapping[str, float]) -> State:
        """Keep the last losses."""
        losses = [*state["losses"], dict(measured)][-self.window :]
        return {**super().take(table, state, measured), "losses": losses}

    def weights(self, table: Table, state: State) -> dict[str, float]:
        """By the losses of the window; before the first each loss counts as 1."""
        names, seen = self.validated(table), state["losses"]
        summed = {name: sum(each[name] for each in seen) if seen else 1.0 for name in names}
        if self.target and seen:
            summed = {name: total / len(seen) for name, total in summed.items()}
        return softmax(scores(self.matrix(table), summed, self.eta))

    def told(self, table: Table, state: State, rows: Any) -> dict[str, Any]:
        """The mix, and how many measurements it comes from."""
        return {**super().told(table, state, rows), "measurements": len(state["losses"])}

    @staticmethod
    def reason(window: Mapping[str, Any], place: int) -> str:
        """Its source's share."""
        source, count = window["sources"][place], window["measurements"]
        what = f"by {count} measurements of validation losses" if count else "as the graph begins it"
        return f"source {source} has {window['mix'][source]:.1%} of the mix, {what}"
