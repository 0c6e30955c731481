"""Aioli: sources by how much training on each lowers all validation losses, probed by the training itself.

Source: "Aioli: A Unified Optimization Framework for Language Model Data Mixing", arXiv 2411.05735, and the authors'
code. A round of `update_steps` steps begins with probes: `sweeps` times, in a random order each time, `probe_steps`
steps on a mix with the share h (`one_hot_factor`) of one source j, the rest spread over the others. The probes are
steps of the run like any other; nothing is taken back. What each source's validation loss fell by in them is, as a mean
over the sweeps, G[i][j]; row by row W A[i] = G[i] is solved, the rows of W being the probes' mixes. A is shifted by its
minimum if that is negative and divided by its total, and

    A_ema = (1 - ema) A_ema + ema A,        w_j ~ exp(eta * sum_i A_ema[i][j])

Without an EMA the mix moves on from the last: w_j ~ w_j exp(eta * sum_i A[i][j]). It begins uniform, and holds for the
rest of the round.

Deviations. The first round's A_ema is its A. Losses are means over the label tokens of held-out demonstrations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from posttrain.curricula.base import DIGITS, State, Table
from posttrain.curricula.by_mix import ByMix, softmax
from posttrain.curricula.order import permutation
from posttrain.errors import DataError

Matrix = Sequence[Sequence[float]]


def solved(drops: Matrix, h: float) -> list[list[float]]:
    """A from W A[i] = G[i], where W has h on the diagonal and (1 - h) / (K - 1) beside it.

    Args:
        drops: G, (K, K): row i the drops of loss i in the probe of each source.
        h: More than 1 / K.
    """
    other = (1.0 - h) / (len(drops) - 1)
    return [[(drop - other * math.fsum(row)) / (h - other) for drop in row] for row in drops]


def normalised(matrix: Matrix) -> list[list[float]]:
    """Shifted by its minimum if that is negative, and divided by its total; all alike where nothing is left."""
    low = min(0.0, min(map(min, matrix)))
    shifted = [[value - low for value in row] for row in matrix]
    total = math.fsum(value for row in shifted for value in row)
    even = 1.0 / len(matrix) ** 2
    return [[value / total if total else even for value in row] for row in shifted]


def column_sums(matrix: Matrix) -> list[float]:
    """What each source does for all."""
    return [math.fsum(column) for column in zip(*matrix, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Aioli(ByMix):
    """A mix by what probes of each source lowered.

    Args:
        source: The column of sources; `None` takes `source`, or the `task` of a mixture.
        eta: The rate.
        ema: Share of a new round in A; `None` moves the last mix on instead.
        one_hot_factor: Share of the probed source in its probe, more than 1 over the number of sources.
        sweeps: Probes of each source in a round.
        probe_steps: Steps of a probe.
        update_steps: Steps of a round, its probes included.
        held_out: Demonstrations of each source that are not trained on, for its validation loss.
    """

    name: Literal["aioli"] = "aioli"
    eta: Annotated[float, Field(gt=0)] = 0.2
    ema: Annotated[float, Field(gt=0, le=1)] | None = 0.1
    one_hot_factor: Annotated[float, Field(gt=0, le=1)] = 0.625
    sweeps: Annotated[int, Field(ge=1)] = 4
    probe_steps: Annotated[int, Field(ge=1)] = 4
    update_steps: Annotated[int, Field(ge=1)] = 250
    __pydantic_config__ = {"extra": "forbid"}

    def check(self, table: Table) -> None:
        """Probes that differ, and a round that has more than these."""
        super().check(table)
        count = len(self.sources(table))
        if self.one_hot_factor * count <= 1:
            raise DataError(
                f"one_hot_factor: {self.one_hot_factor:g}, of {count} sources",
                expected=f"more than {1 / count:.3g}: a probe has more of its source than an even mix",
                where="curriculum.one_hot_factor",
                fix="set it to 0.75",
            )
        if self.update_steps <= (probes := self._probes(count)):
            raise DataError(
                f"update_steps: {self.update_steps}, and the probes of {count} sources take {probes} steps",
                expected="a round with steps left for the mix that they give",
                where="curriculum.update_steps",
                fix=f"set it to {4 * probes}, or lower sweeps or probe_steps",
            )

    def start(self, table: Table, seed: int) -> State:
        """An even mix."""
        count = len(self.sources(table))
        zeros = [[0.0] * count for _ in range(count)]
        even = dict.fromkeys(self.sources(table), 1.0 / count)
        return {**super().start(table, seed), "last": {}, "drops": zeros, "matrix": None, "mix": even}

    def measures_after(self, steps: int, sources: int) -> bool:
        """Before the first probe of a round and after each."""
        place = steps % self.update_steps
        return place <= self._probes(sources) and place % self.probe_steps == 0

    def first_change(self, table: Table) -> int:
        """When the first round's probes are done."""
        return self._probes(len(self.sources(table)))

    def take(self, table: Table, state: State, measured: Mapping[str, float]) -> State:
        """What the probe that is done has lowered; after the last of a round the new mix."""
        names, place = list(self.sources(table)), state["steps"] % self.update_steps
        before, drops = state["last"], [list(row) for row in state["drops"]]
        state = {**super().take(table, state, measured), "last": dict(measured)}
        if place == 0 or not before:
            return {**state, "drops": [[0.0] * len(names) for _ in names]}
        probed = names.index(str(self.probe(table, {**state, "steps": state["steps"] - 1})))
        for number, name in enumerate(names):
            drops[number][probed] += before[name] - measured[name]
        if place < self._probes(len(names)):
            return {**state, "drops": drops}
        return {**state, "drops": drops, **self._learned(names, state, drops)}

    def _learned(self, names: Sequence[str], state: State, drops: Matrix) -> State:
        means = [[drop / self.sweeps for drop in row] for row in drops]
        matrix, before, kept = normalised(solved(means, self.one_hot_factor)), state["matrix"], self.ema
        if kept is not None and before is not None:
            rows = zip(before, matrix, strict=True)
            matrix = [[(1 - kept) * a + kept * b for a, b in zip(*pair, strict=True)] for pair in rows]
        gains = dict(zip(names, column_sums(matrix), strict=True))
        begin = {name: math.log(state["mix"][name]) if kept is None else 0.0 for name in names}
        return {"matrix": matrix, "mix": softmax({name: begin[name] + self.eta * gains[name] for name in names})}

    def probe(self, table: Table, state: State) -> str | None:
        """The source whose probe the next step is of, if it is of one."""
        names = list(self.sources(table))
        round_, place = divmod(state["steps"], self.update_steps)
        if place >= self._probes(len(names)):
            return None
        sweep, number = divmod(place // self.probe_steps, len(names))
        return names[permutation(f"aioli:{state['seed']}:{round_}:{sweep}", len(names))[number]]

    def weights(self, table: Table, state: State) -> dict[str, float]:
        """A probe's mix, or the one that was learned."""
        probed, names = self.probe(table, state), list(self.sources(table))
        if probed is None:
            return dict(state["mix"])
        other = (1.0 - self.one_hot_factor) / (len(names) - 1)
        return {name: self.one_hot_factor if name == probed else other for name in names}

    def told(self, table: Table, state: State, rows: Sequence[int]) -> dict[str, Any]:
        """The mix, whose probe it is, and what each source does for all by the last round."""
        sums = column_sums(state["matrix"]) if state["matrix"] else None
        gains = dict(zip(self.sources(table), sums, strict=True)) if sums else None
        learned = {name: round(gain, DIGITS) for name, gain in gains.items()} if gains else None
        return {**super().told(table, state, rows), "probe": self.probe(table, state), "learned": learned}

    @staticmethod
    def reason(window: Mapping[str, Any], place: int) -> str:
        """Its source's share, and whose probe it is."""
        source = window["sources"][place]
        what = f"in the probe of {window['probe']}" if window["probe"] else "as the last probes gave it"
        return f"source {source} has {window['mix'][source]:.1%} of the mix, {what}"

    def _probes(self, sources: int) -> int:
        return self.sweeps * sources * self.probe_steps
