"""GAIN-RL: prompts by how much their hidden states point the same way; a window over these moves with accuracy.

Source: "Angles Don't Lie: Unlocking Training-Efficient RL Through the Model's Own Signals", arXiv 2506.02281, and the
authors' code. Before the stage each prompt passes through the model once. Of the hidden states that enter the MLP of
the last layer, cosines are taken: a mean `within` the tokens of the question, and one `between` these and the tokens of
the template before it. Prompts are ordered by

    within + context * between

the highest first. A round of prompts is drawn without replacement, with the weight exp(-((rank - m) / std)^2 / 2), and
gone through in the order of their ranks. m begins at 0; after a round of accuracy acc it moves on by

    n tanh(alpha (acc - beta)) + n tanh(alpha angle),        within adj_min and adj_max

where angle is the mean cosine of all pairs of tokens.

Deviations. The angle of a round is that of its prompts as they were measured before the stage, not of its rollouts
under the policy of the day: it costs no further passes. Means are over pairs of different tokens: the released code
slices rows twice instead of rows and columns, and has the diagonal and one above it, and zeros, in its means. The
template is what all prompts have in common at their beginning and end, in tokens, where the code has 110 and 6. A round
is of 256 prompts as in the authors' trainer for TRL, and whole windows; that trainer draws a round by the m before the
last one, and halves its accuracy, for its reward of a right answer is 2. m stays within the prompts: past the last one
nothing is left to draw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from posttrain.curricula.base import DIGITS, Curriculum, Outcome, State, Table
from posttrain.errors import ConfigError, DataError

Rate = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]


def shift(
    accuracy: float, angle: float, *, n: float, alpha: float, beta: float, adj_min: float, adj_max: float
) -> float:
    """By how many ranks the window moves after a round."""
    by = n * math.tanh(alpha * (accuracy - beta)) + n * math.tanh(alpha * angle)
    return min(max(by, adj_min), adj_max)


def weight(rank: float, mean: float, std: float) -> float:
    """Of a rank in the draws, 1 in the middle of the window."""
    return math.exp(-0.5 * ((rank - mean) / std) ** 2)


@lru_cache(maxsize=4)
def chosen(size: int, count: int, mean: float, std: float, key: tuple[int, ...]) -> tuple[int, ...]:
    """`count` of `size` ranks without replacement by their weights, in their order.

    The highest of log-weights plus Gumbel noise: the same as to draw one after the other, also where all weights are
    too small for floats.

    Args:
        key: Of the random numbers.
    """
    noise = np.random.default_rng(key).gumbel(size=size)
    values = noise - 0.5 * ((np.arange(size) - mean) / std) ** 2
    return tuple(np.sort(np.argsort(-values, kind="stable")[:count]).tolist())


@dataclass(frozen=True, kw_only=True)
class GAINRL(Curriculum):
    """A window over the prompts by the concentration of their angles.

    Args:
        std: Width of the window, in ranks. The paper's is for data sets of some thousand prompts.
        n: How far accuracy and angles move it, each at most, in ranks.
        alpha: How steeply.
        beta: The accuracy that moves it no further.
        adj_min, adj_max: Least and most that it moves after a round, in ranks.
        round: Prompts after which it moves.
        context: What the cosines between question and template count beside those within the question.
        model: Whose hidden states: the model that the warm-up left (`warmup`; without one the recipe's own), or the
            recipe's own (`base`).
        source: As for every curriculum; for the record alone.
    """

    name: Literal["gain_rl"] = "gain_rl"
    std: Annotated[float, Field(gt=0)] = 1000.0
    n: NotNegative = 500.0
    alpha: NotNegative = 2.0
    beta: Rate = 0.5
    adj_min: float = 0.0
    adj_max: float = 1000.0
    round: Annotated[int, Field(ge=1)] = 256
    context: float = 8.0
    model: Literal["base", "warmup"] = "warmup"
    adaptive: ClassVar[bool] = True
    prefills: ClassVar[bool] = True
    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.adj_min > self.adj_max:
            raise ConfigError(
                f"adj_min: {self.adj_min:g}, and adj_max: {self.adj_max:g}",
                expected="the former no higher than the latter",
                where="curriculum.adj_min",
            )

    def check(self, table: Table) -> None:
        """Angles of each prompt."""
        if table.angles is None:
            raise DataError(
                "the angles of the prompts' hidden states are not known",
                expected="three means of each prompt: a run measures them before the stage; as a library hand them in",
                where="curriculum",
                fix="pass curriculum=Sampler(curriculum, curriculum.table(rows, rows.column_names, "
                "angles=measure(model, prompt_ids))), with posttrain.evaluation.angles.measure",
            )

    def start(self, table: Table, seed: int) -> State:
        """The window over the first ranks, and nothing seen of the round."""
        return {**super().start(table, seed), "size": table.size, "mean": 0.0, "rounds": 0, **_begun(0)}

    def order(self, table: Table) -> np.ndarray:
        """(N,) prompts by rank, the highest concentration first, equal ones as they stand in the table."""
        angles = np.asarray(table.angles, dtype="f8")
        return np.argsort(-(angles[:, 0] + self.context * angles[:, 1]), kind="stable")

    def draw(self, table: Table, state: State, count: int) -> list[int]:
        """The next prompts of the round, and further ones from where the window is now."""
        order = self._order(table)
        return [int(order[rank]) for rank in self._ranks(state, count)]

    def observe(self, table: Table, state: State, outcomes: Sequence[Outcome]) -> State:
        """What the round has seen; where it is over, the window after it has moved."""
        assert table.angles is not None
        rates = [(outcome.rate, table.angles[outcome.row][2]) for outcome in outcomes if outcome.rate is not None]
        after = super().observe(table, state, outcomes)
        after["scored"] = state["scored"] + len(rates)
        for name, values in (("solved", [rate for rate, _ in rates]), ("angle", [angle for _, angle in rates])):
            after[name] = round(state[name] + math.fsum(map(float, values)), DIGITS)
        if after["drawn"] - state["began"] < self.round:
            return after
        mean = state["mean"]
        if after["scored"]:
            accuracy, angle = after["solved"] / after["scored"], after["angle"] / after["scored"]
            mean = min(max(mean + self.moved(accuracy, angle), 0.0), table.size - 1.0)
        return {**after, "mean": round(mean, DIGITS), "rounds": state["rounds"] + 1, **_begun(after["drawn"])}

    def moved(self, accuracy: float, angle: float) -> float:
        """By how many ranks the window moves after a round of such accuracy and angles."""
        more = {name: getattr(self, name) for name in ("n", "alpha", "beta", "adj_min", "adj_max")}
        return shift(accuracy, angle, **more)

    def told(self, table: Table, state: State, rows: Sequence[int]) -> dict[str, Any]:
        """Where the window is, and the prompts' ranks and weights in it."""
        ranks = self._ranks(state, len(rows))
        return {
            "of": table.size,
            "mean": state["mean"],
            "std": self.std,
            "round": state["rounds"],
            "places": ranks,
            "values": [round(weight(rank, state["mean"], self.std), DIGITS) for rank in ranks],
        }

    @staticmethod
    def reason(window: Mapping[str, Any], place: int) -> str:
        """Its rank and weight."""
        return (
            f"number {window['places'][place] + 1} of {window['of']} by angle concentration, with the weight "
            f"{window['values'][place]:.2f} under a window about number {window['mean'] + 1:.0f} with a standard "
            f"deviation of {window['std']:g}, in round {window['round'] + 1}"
        )

    def _ranks(self, state: State, count: int) -> list[int]:
        size = state["size"]
        each, found = min(self.round, size), []
        for place in range(state["drawn"] - state["began"], state["drawn"] - state["began"] + count):
            lap, offset = divmod(place, each)
            key = (state["seed"], state["rounds"], lap, 0xA461E)
            found.append(chosen(size, each, state["mean"], self.std, key)[offset])
        return found

    def _order(self, table: Table) -> Any:
        return table.once(("gain_rl", self.context), lambda: self.order(table))


def _begun(drawn: int) -> dict[str, Any]:
    """A round that begins after so many prompts."""
    return {"began": drawn, "scored": 0, "solved": 0.0, "angle": 0.0}
