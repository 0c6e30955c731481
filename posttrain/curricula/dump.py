"""DUMP: sources by how much there is to learn from them, as a bandit with upper confidence bounds.

Source: "DUMP: Automated Distribution-Level Curriculum Learning for RL-based LLM Post-training", arXiv 2504.09710, and
the authors' code. For each source d, over the |advantage| of its last 300 rollouts:

    UCB_d = mean |A| + sqrt(2 ln(N + 1) / (n_d + 1)),        p = softmax(UCB / temperature)

n_d counts its rollouts, N those of all sources. A source is drawn by p, then one of its prompts, all alike. The
absolute value is taken of each rollout: the mean of a group's advantages is 0 by construction.

Deviations. The advantage is GRPO's (r - mean) / (std + 1e-4) whatever `scale_rewards` says, so that sources whose
rewards are of other sizes can be compared. The authors' code keeps a Beta posterior beside it that sampling does not
use; it is not here.
"""

from __future__ import annotations

import math
import random
from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from posttrain.curricula.base import DIGITS, Curriculum, Outcome, State, Table


def bonus(total: int, of_source: int) -> float:
    """How far the bound of a source lies above its mean, after so many rollouts of all sources and of this one."""
    return math.sqrt(2.0 * math.log(total + 1) / (of_source + 1))


def softmax(values: Sequence[float], temperature: float) -> list[float]:
    """exp(v / temperature), normalised."""
    top = max(values)
    powers = [math.exp((value - top) / temperature) for value in values]
    return [power / sum(powers) for power in powers]


@dataclass(frozen=True, kw_only=True)
class DUMP(Curriculum):
    """A bandit over sources.

    Args:
        source: The column that says which source a prompt is from; `None` takes `source`, or the `task` of a mixture.
        temperature: Of the softmax over the sources' bounds.
        window: Rollouts of a source whose advantages count.
    """

    name: Literal["dump"] = "dump"
    temperature: Annotated[float, Field(gt=0)] = 0.1
    window: Annotated[int, Field(ge=1)] = 300
    adaptive: ClassVar[bool] = True
    by_source: ClassVar[bool] = True
    __pydantic_config__ = {"extra": "forbid"}

    def start(self, table: Table, seed: int) -> State:
        """Nothing was seen of any source."""
        return {**super().start(table, seed), "sources": {name: {"n": 0, "seen": []} for name in self.sources(table)}}

    def chances(self, table: Table, state: State) -> dict[str, dict[str, float]]:
        """Of each source its mean |A| (`gain`), `bonus` and chance `p`."""
        seen = state["sources"]
        total = sum(each["n"] for each in seen.values())
        gains = {name: sum(each["seen"]) / len(each["seen"]) if each["seen"] else 0.0 for name, each in seen.items()}
        more = {name: bonus(total, each["n"]) for name, each in seen.items()}
        p = softmax([gains[name] + more[name] for name in seen], self.temperature)
        return {name: {"gain": gains[name], "bonus": more[name], "p": p[at]} for at, name in enumerate(seen)}

    def draw(self, table: Table, state: State, count: int) -> list[int]:
        """A source by its chance, then a prompt of it, each draw by itself."""
        rows, chances = self.sources(table), self.chances(table, state)
        names, upto = list(chances), list(accumulate(each["p"] for each in chances.values()))
        drawn = []
        for number in range(state["drawn"], state["drawn"] + count):
            rng = random.Random(f"dump:{state['seed']}:{number}")
            of = rows[names[min(bisect(upto, rng.random() * upto[-1]), len(names) - 1)]]
            drawn.append(of[rng.randrange(len(of))])
        return drawn

    def observe(self, table: Table, state: State, outcomes: Sequence[Outcome]) -> State:
        """The sources with the advantages of their new rollouts."""
        column = self.source_of(list(table.columns))
        assert column is not None
        sources = {name: {"n": each["n"], "seen": list(each["seen"])} for name, each in state["sources"].items()}
        for outcome in outcomes:
            source = sources[str(table.columns[column][outcome.row])]
            gains = [round(abs(advantage), DIGITS) for advantage in outcome.advantages]
            source["n"] += len(gains)
            source["seen"] = (source["seen"] + gains)[-self.window :]
        return {**super().observe(table, state, outcomes), "sources": sources}

    def told(self, table: Table, state: State, rows: Sequence[int]) -> dict[str, Any]:
        """The sources' chances."""
        chances = self.chances(table, state)
        return {
            "chances": {
                name: {key: round(value, DIGITS) for key, value in of.items()}
                | {"rollouts": state["sources"][name]["n"]}
                for name, of in chances.items()
            }
        }

    @staticmethod
    def reason(window: Mapping[str, Any], place: int) -> str:
        """Its source's chance, and what that comes from."""
        source = window["sources"][place]
        of = window["chances"][source]
        return (
            f"source {source}, drawn with p = {of['p']:.3f}: mean |advantage| {of['gain']:.3f} over its last rollouts "
            f"and a bonus of {of['bonus']:.3f} after {of['rollouts']:,} of them"
        )
