"""BOTS: each prompt has a Beta posterior of its solve rate, and those are drawn that are likely near a target.

Source: "BOTS: A Unified Framework for Bayesian Online Task Selection in LLM Reinforcement Finetuning", arXiv
2510.26374, and the estimator in Trinity-RFT. After a window of rollouts, for every prompt, with s successes and f
failures among G rollouts (both 0 if it was not drawn):

    alpha <- (1 - decay) alpha + decay + (1 - rho) s + rho q G
    beta  <- (1 - decay) beta  + decay + (1 - rho) f + rho (1 - q) G

so that what is known fades towards Beta(1, 1) as the policy changes. q is implicit evidence of prompts that were not
drawn: with pass rates of a weak and a strong model in two columns, q = weak + c (strong - weak), within 0 and 1, where
c is how far between the two the policy is on the prompts that were drawn (a moving mean, 0.9 of the old). Of a prompt
that was drawn q is its own solve rate. A rate is drawn from each posterior (Thompson), and the prompts whose rates are
nearest to the target are taken.

Deviations. Without `anchors` there is no implicit evidence and rho is 0. A window on whose prompts the two models are
alike says nothing of c, which stays as it was: in Trinity it is divided by what is next to 0, and a mean of such
numbers is beyond both models for a hundred windows. s is the sum of the rewards' shares of the best, which is a count
where rewards are 0 or 1. Trinity can also draw by a softmax over the distances (`tau`); here it is the nearest always
(tau 0), and a window that is larger than the data set goes over it again. Posteriors are kept in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from posttrain.curricula.base import DIGITS, Curriculum, Outcome, State, Table
from posttrain.curricula.order import cycled
from posttrain.curricula.packed import packed, unpacked
from posttrain.errors import ConfigError, DataError

MEMORY = 0.9
"""What the place between the anchors counts that was known before a window."""
APART = 0.05
"""Least distance of the anchors on a window's prompts by which the place between them can be told."""


@dataclass(frozen=True, kw_only=True)
class BOTS(Curriculum):
    """Thompson sampling at a target solve rate.

    Args:
        target: The solve rate to train at.
        decay: How much of what is known of a prompt fades with a window.
        rho: Of the evidence, the share that is implicit; without `anchors` it is 0.
        anchors: Two columns with the pass rates of a weaker and a stronger model.
        source: As for every curriculum; for the record alone.
    """

    name: Literal["bots"] = "bots"
    target: Annotated[float, Field(ge=0, le=1)] = 0.5
    decay: Annotated[float, Field(ge=0, le=1)] = 0.2
    rho: Annotated[float, Field(ge=0, le=1)] = 0.2
    anchors: tuple[str, str] | None = None
    adaptive: ClassVar[bool] = True
    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.anchors is None and self.rho != 0.2:
            raise ConfigError(
                f"rho: {self.rho:g}, and no anchors",
                expected="columns with the pass rates of two models, from which implicit evidence comes",
                where="curriculum.rho",
                fix="leave rho out, or set anchors: [WEAK, STRONG]",
            )

    def wanted(self) -> tuple[str, ...]:
        """The anchors."""
        return tuple(self.anchors or ())

    def check(self, table: Table) -> None:
        """Anchors are rates."""
        for name in self.wanted():
            values = table.numbers.get(name)
            if values is None or not all(0.0 <= value <= 1.0 for value in values):
                raise DataError(
                    f"the column {name!r} is not of rates",
                    expected="a number from 0 to 1 in each row: how often a model solves it",
                    where="curriculum.anchors",
                    fix="name columns of pass rates, or leave anchors out",
                )

    def start(self, table: Table, seed: int) -> State:
        """Beta(1, 1) of every prompt."""
        ones = packed(np.ones(table.size, dtype="f4"))
        return {**super().start(table, seed), "size": table.size, "alpha": ones, "beta": ones, "place": None}

    def rates(self, table: Table, state: State) -> np.ndarray:
        """A solve rate of each prompt, drawn from its posterior; the record's are those of the draw."""
        return self._drawn(table, state)[0]

    def _drawn(self, table: Table, state: State) -> tuple[np.ndarray, np.ndarray]:
        """These, and all prompts by how near theirs is to the target; once a window, however often it draws."""

        def make() -> tuple[np.ndarray, np.ndarray]:
            rng = np.random.default_rng([state["seed"], state["drawn"], 0xB075])
            rates = rng.beta(unpacked(state["alpha"], "f4"), unpacked(state["beta"], "f4"))
            return rates, np.argsort(np.abs(rates - self.target), kind="stable")

        return table.latest("bots", (self, *(state[name] for name in ("seed", "drawn", "alpha", "beta"))), make)

    def draw(self, table: Table, state: State, count: int) -> list[int]:
        """The prompts whose drawn rates are nearest to the target, the nearest first."""
        _, order = self._drawn(table, state)
        return cycled(order[:count].tolist() if count < len(order) else order.tolist(), 0, count)

    def observe(self, table: Table, state: State, outcomes: Sequence[Outcome]) -> State:
        """Every posterior after one window more."""
        alpha, beta = (unpacked(state[name], "f4").astype("f8") for name in ("alpha", "beta"))
        known = [outcome for outcome in outcomes if outcome.rate is not None]
        place, rho = state["place"], self.rho if self.anchors else 0.0
        alpha, beta = ((1.0 - self.decay) * each + self.decay for each in (alpha, beta))
        if known and rho:
            weak, strong = (np.asarray(table.numbers[name]) for name in self.wanted())
            rows = [outcome.row for outcome in known]
            rate = float(np.mean([outcome.rate for outcome in known]))
            gap = strong[rows].mean() - weak[rows].mean()
            if abs(gap) >= APART:
                now = (rate - weak[rows].mean()) / (gap + 1e-6)
                place = float(now if place is None else MEMORY * place + (1.0 - MEMORY) * now)
        rho = 0.0 if place is None else rho
        if known and rho:
            group = max(len(outcome.shares) for outcome in known)
            q = np.clip(weak + place * (strong - weak), 0.0, 1.0)
            for outcome in known:
                q[outcome.row] = outcome.rate
            alpha, beta = alpha + rho * q * group, beta + rho * (1.0 - q) * group
        for outcome in known:
            solved = sum(outcome.shares)
            alpha[outcome.row] += (1.0 - rho) * solved
            beta[outcome.row] += (1.0 - rho) * (len(outcome.shares) - solved)
        return {
            **super().observe(table, state, outcomes),
            "alpha": packed(alpha.astype("f4")),
            "beta": packed(beta.astype("f4")),
            "place": place,
        }

    def told(self, table: Table, state: State, rows: Sequence[int]) -> dict[str, Any]:
        """The mean of each prompt's posterior, how much evidence it holds, and the rate that was drawn from it."""
        alpha, beta = (unpacked(state[name], "f4")[list(rows)].astype("f8") for name in ("alpha", "beta"))
        named = {"expected": alpha / (alpha + beta), "evidence": alpha + beta, "values": self.rates(table, state)[rows]}
        return {"target": self.target, **{name: np.round(of, DIGITS).tolist() for name, of in named.items()}}

    @staticmethod
    def reason(window: Mapping[str, Any], place: int) -> str:
        """How near its rate was to the target."""
        values, expected, evidence = (window[name][place] for name in ("values", "expected", "evidence"))
        if evidence <= 2.0:
            known = "nothing is known of it yet"
        else:
            known = f"its posterior has the mean {expected:.2f} and the weight of {evidence - 2.0:.1f} rollouts"
        return f"a solve rate of {values:.2f} was drawn for it, near the target {window['target']:g}: {known}"
