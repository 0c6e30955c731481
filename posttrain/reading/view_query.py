"""What `posttrain view` can be asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.errors import ConfigError
from posttrain.rundir.layout import STAGES

Row = dict[str, Any]


_PART = re.compile(r"(?P<name>.+?)(?P<sign><=|>=|<|>|=)(?P<value>.+)")


@dataclass(frozen=True)
class PartFilter:
    """`NAME<VALUE` on a part of a score, or on one of several rewards."""

    name: str
    sign: str
    value: float

    @classmethod
    def parse(cls, text: str) -> PartFilter:
        """From the command line.

        Raises:
            ConfigError: It is no name, sign and number.
        """
        found = _PART.fullmatch(text)
        try:
            return cls(found["name"].strip(), found["sign"], float(found["value"]))  # type: ignore[index]
        except (TypeError, ValueError):
            raise ConfigError(
                f"{text!r}", expected="such as 'format<0.5'", where="--part",
                fix="write a name, one of < <= = >= > and a number, all in quotes",
            ) from None  # fmt: skip


@dataclass(frozen=True)
class Query:
    """Which completions to find, and in what order.

    Attributes:
        stage: Evaluations of this stage; `None` looks at the rollouts of training.
        step: Of this step only.
        first, last: Of steps in this range, both included.
        min_reward, max_reward: Of the (weighted) reward, or of an evaluation's score.
        parts: Filters on parts; all must hold.
        source: The prompt's.
        text: Must be found in the completion.
        order: "newest" first, or the "best" or "worst" by reward.
        limit: At most so many rows.
    """

    stage: str | None = None
    step: int | None = None
    first: int | None = None
    last: int | None = None
    min_reward: float | None = None
    max_reward: float | None = None
    parts: tuple[PartFilter, ...] = ()
    source: str | None = None
    text: re.Pattern[str] | None = None
    order: str = "newest"
    limit: int = 20


@dataclass(frozen=True)
class Table:
    """A file of completions: a step's rollouts (`stage` is "rollout") or an evaluation's."""

    stage: str
    step: int
    path: Path

    @property
    def place(self) -> tuple[int, int, bool]:
        """Where in the run it was made: an evaluation follows the step that it is named after."""
        stage = "hybrid" if self.stage == "rollout" else self.stage
        return STAGES.index(stage), self.step, self.stage != "rollout"


def compiled(text: str | None) -> re.Pattern[str] | None:
    """A regular expression from the command line.

    Raises:
        ConfigError: It is none.
    """
    try:
        return None if text is None else re.compile(text, re.DOTALL)
    except re.error as error:
        raise ConfigError(
            f"{text!r} is no regular expression: {error}", where="--text", fix="put a \\ before signs meant as such"
        ) from error
