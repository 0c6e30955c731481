"""EXP3 over sources: by chance, more often those whose gradients have agreed with the target's.

Source: EXP3-FLAD, arXiv 2302.00674, and the authors' code. After a step, for each source d with rows in it, r_d being
the cosine of its gradient and the target's, which may be negative:

    R_d += r_d / P_d
    P_d = (1 - K eps_t) exp(eps_(t-1) R_d) / sum + eps_t,        eps_t = min(1 / K, sqrt(ln K / (K (10 t + 1))))

over K sources. The 10 is in the code and not in the paper. t counts plays, here `batch` demonstrations each. What these
have in common with `ucb1`, and where both deviate, is in `flad`.
"""

from __future__ import annotations

import math
import random
from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, Any, Literal

from pydantic import Field

from posttrain.curricula.base import DIGITS, State, Table
from posttrain.curricula.flad import FLAD


def epsilon(sources: int, plays: float) -> float:
    """The least chance of a source after so many plays."""
    return min(1 / sources, math.sqrt(math.log(sources) / (sources * (10 * plays + 1))))


def chances(rewards: Sequence[float], before: float, now: float) -> list[float]:
    """The chance of each source.

    Args:
        rewards: The sums R of each.
        before, now: Epsilon before the latest plays, and after them.
    """
    top = max(rewards)
    powers = [math.exp(before * (reward - top)) for reward in rewards]
    return [(1 - len(rewards) * now) * power / sum(powers) + now for power in powers]


@dataclass(frozen=True, kw_only=True)
class EXP3(FLAD):
    """Chances by importance-weighted sums of cosines.

    Args:
        beta: What a new cosine counts against the mean of those before; 1: it alone.
    """

    name: Literal["exp3"] = "exp3"
    beta: Annotated[float, Field(gt=0, le=1)] = 1.0
    __pydantic_config__ = {"extra": "forbid"}

    def start(self, table: Table, seed: int) -> State:
        """All sources alike."""
        state = super().start(table, seed)
        each = 1 / len(state["sources"])
        sources = {name: {**of, "reward": 0.0, "p": each} for name, of in state["sources"].items()}
        return {**state, "sources": sources, "epsilon": each}

    def first_change(self, table: Table) -> int:
        """One: the second step is drawn by what the first has shown."""
        return 1

    def choose(self, state: State, taken: Mapping[str, int], number: int) -> str:
        """By chance."""
        names, upto = list(state["sources"]), list(accumulate(of["p"] for of in state["sources"].values()))
        at = random.Random(f"exp3:{state['seed']}:{number}").random() * upto[-1]
        return names[min(bisect(upto, at), len(names) - 1)]

    def learned(self, state: State, name: str, of: Mapping[str, Any], value: float | None) -> dict[str, Any]:
        """Its sum, which grows by more where it was unlikely."""
        if value is None:
            return dict(of)
        mean = value if of["value"] is None else (1 - self.beta) * of["value"] + self.beta * value
        return {**of, "value": mean, "reward": of["reward"] + mean / of["p"]}

    def take(self, table: Table, state: State, measured: Mapping[str, float]) -> State:
        """The sums, and the chances that follow."""
        state = super().take(table, state, measured)
        sources = state["sources"]
        now = epsilon(len(sources), self.plays({name: of["taken"] for name, of in sources.items()}))
        p = chances([of["reward"] for of in sources.values()], state["epsilon"], now)
        sources = {name: {**of, "p": chance} for (name, of), chance in zip(sources.items(), p, strict=True)}
        return {**state, "sources": sources, "epsilon": now}

    def told(self, table: Table, state: State, rows: Sequence[int]) -> dict[str, Any]:
        """The chance of each source, and what it comes from."""
        return {
            "chances": {
                name: {
                    "value": None if of["value"] is None else round(of["value"], DIGITS),
                    "reward": round(of["reward"], DIGITS),
                    "p": round(of["p"], DIGITS),
                    "taken": of["taken"],
                }
                for name, of in state["sources"].items()
            }
        }

    @staticmethod
    def reason(window: Mapping[str, Any], place: int) -> str:
        """Its source's chance."""
        source = window["sources"][place]
        of = window["chances"][source]
        last = "no gradient of it was compared yet" if of["value"] is None else (
            f"its gradient had a cosine of {of['value']:.3f} with the target's when it was last drawn"
        )  # fmt: skip
        return f"source {source}, drawn with p = {of['p']:.3f}: {last}"
