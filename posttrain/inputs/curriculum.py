"""Whether a task's rows have what the recipe's curricula draw by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.curricula import Curriculum
from posttrain.errors import DataError
from posttrain.recipe.recipe import Recipe

ROWS = {"hybrid": "prompts", "warmup": "demonstrations"}
"""What the curriculum of a stage draws."""


class Columns(dict[str, list[Any]]):
    """The columns of rows; one is made when it is asked for."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]):
        super().__init__()
        self._rows = rows

    def __missing__(self, name: str) -> list[Any]:
        self[name] = [row.get(name) for row in self._rows]
        return self[name]

    def __len__(self) -> int:
        return len(self._rows)


def names_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns that any of the rows has."""
    return list(dict.fromkeys(name for row in rows for name in row))


def check_curriculum(recipe: Recipe, rows: Sequence[Mapping[str, Any]], stage: str = "hybrid") -> None:
    """Refuse rows without the columns that a stage's curriculum needs, before a model loads.

    Args:
        recipe: The recipe.
        rows: What the curriculum draws: prompts, or the demonstrations of the warm-up.
        stage: "hybrid" or "warmup".

    Raises:
        DataError: With the column, and those that there are.
    """
    section = getattr(recipe, stage)
    if section.curriculum is None or not section.steps or not rows:
        return
    curriculum, names, of = section.curriculum, names_of(rows), ROWS[stage]
    try:
        if lacking := curriculum.missing(names):
            raise curriculum.lack(lacking[0], names, of)
        if not (curriculum.completions or curriculum.prefills):  # else rates or angles are to be measured
            table = curriculum.table(Columns(rows), names, of=of)
            _check_moves(curriculum, curriculum.first_change(table), section.steps)
    except DataError as error:
        key = f"{stage}.{error.where}" if error.where else f"{stage}.curriculum"
        raise DataError(error.seen, expected=error.expected, where=recipe.where(key), fix=error.fix) from error


def _check_moves(curriculum: Curriculum, change: int | None, steps: int) -> None:
    """Refuse a stage that is over before what is measured could move the draws."""
    if change is not None and steps <= change:
        raise DataError(
            f"the mix first moves after step {change}, and the stage has {steps}",
            expected="measurements that have an effect",
            where="curriculum.update_steps" if hasattr(curriculum, "update_steps") else "steps",
            fix="lower it, or train for more steps" if hasattr(curriculum, "update_steps") else "train for more steps",
        )
