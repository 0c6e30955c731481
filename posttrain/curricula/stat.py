"""STAT: prompts by the skills that the model lacks, as its failures show them.

Source: "Skill-Targeted Adaptive Training", arXiv 2510.10023, the selection variant (STAT-Sel). Problems that the model
fails give a profile: how often each skill is missing. For every time that a skill is missing, five training questions
with that skill are drawn.

Deviations. What is difficult is told by the rewards, not by a process reward model: a prompt whose pass rate before the
stage is at most `difficult`. Which skills are missing is not asked of a strong model: all skills in the `skills` column
of a difficult prompt count. The profile is of the training prompts themselves, so that no held-out problem steers the
training; the paper has a validation split of its own. The paper trains on the set by SFT; here its prompts are sampled
from, and drawn anew each epoch.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from posttrain.curricula.base import Curriculum, State, Table
from posttrain.curricula.easy_to_hard import never_solved
from posttrain.errors import DataError

Drawn = tuple[int, str]
"""A prompt and the skill that it was drawn for."""


@dataclass(frozen=True, kw_only=True)
class STAT(Curriculum):
    """A profile of missing skills, and prompts by it.

    Args:
        skills: The column of skills: a list of names, or one name.
        difficult: The highest pass rate of a prompt whose skills count as missing.
        per_skill: Prompts for every time that a skill is missing.
        model: Whose pass rates: the recipe's own (`base`), or the one that the warm-up left (`warmup`).
        samples: Completions per prompt for these; 1 takes the greedy one.
        source: As for every curriculum; for the record alone.
    """

    name: Literal["stat"] = "stat"
    skills: str = "skills"
    difficult: Annotated[float, Field(ge=0, lt=1)] = 0.5
    per_skill: Annotated[int, Field(ge=1)] = 5
    model: Literal["base", "warmup"] = "base"
    samples: Annotated[int, Field(ge=1)] = 8
    measures: ClassVar[bool] = True
    __pydantic_config__ = {"extra": "forbid"}

    def wanted(self) -> tuple[str, ...]:
        """The skills."""
        return (self.skills,)

    def check(self, table: Table) -> None:
        """Pass rates, and some prompt that is difficult and has a skill."""
        if table.rates is None:
            raise never_solved(table)
        if not self.profile(table):
            raise DataError(
                f"no prompt with a pass rate of {self.difficult:g} or less has a skill in the column {self.skills!r}",
                expected="difficult prompts with the names of the skills that they take",
                where="curriculum.difficult",
                fix="set it higher, or use harder prompts",
            )

    def profile(self, table: Table) -> dict[str, int]:
        """How often each skill is missing, by the order in which they first are."""
        return dict(table.once(("stat profile", self), partial(self._counted, table)))

    def _counted(self, table: Table) -> Counter[str]:
        rates = table.rates or ()
        difficult = [row for row in range(table.size) if rates[row] <= self.difficult]
        return Counter(skill for row in difficult for skill in _skills(table.columns[self.skills][row]))

    def chosen(self, table: Table, seed: int, epoch: int) -> list[Drawn]:
        """An epoch's prompts: for each time that a skill is missing, `per_skill` with that skill, all of them mixed."""
        having: dict[str, list[int]] = {}
        for row, value in enumerate(table.columns[self.skills]):
            for skill in _skills(value):
                having.setdefault(skill, []).append(row)
        rng = random.Random(f"stat:{seed}:{epoch}")
        drawn = [
            (rng.choice(having[skill]), skill)
            for skill, count in self.profile(table).items()
            for _ in range(self.per_skill * count)
        ]
        rng.shuffle(drawn)
        return drawn

    def draw(self, table: Table, state: State, count: int) -> list[int]:
        """The next of the epoch's prompts."""
        return [row for row, _ in self._next(table, state, count)]

    def told(self, table: Table, state: State, rows: Sequence[int]) -> dict[str, Any]:
        """The profile, and the skill that each prompt was drawn for."""
        return {"profile": self.profile(table), "values": [of for _, of in self._next(table, state, len(rows))]}

    @staticmethod
    def reason(window: Mapping[str, Any], place: int) -> str:
        """The skill that it is for."""
        skill, profile = window["values"][place], window["profile"]
        missing = f"missing {profile[skill]:,} times of {sum(profile.values()):,}"
        return f"for the skill {skill}, {missing} among the prompts that were difficult before"

    def _next(self, table: Table, state: State, count: int) -> list[Drawn]:
        found: list[Drawn] = []
        while len(found) < count:
            size = table.once(("stat size", self), lambda: self.per_skill * sum(self.profile(table).values()))
            epoch, offset = divmod(state["drawn"] + len(found), size)
            key = ("stat", self, state["seed"], epoch)
            chosen = table.once(key, partial(self.chosen, table, state["seed"], epoch))
            found += chosen[offset : offset + count - len(found)]
        return found


def _skills(value: Any) -> list[str]:
    """The skills of a row: of a list each once."""
    return list(dict.fromkeys(map(str, value))) if isinstance(value, list | tuple) else [str(value)]
