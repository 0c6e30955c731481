"""Whether a task's prompts have what the recipe's curriculum draws by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.errors import DataError
from posttrain.recipe.recipe import Recipe


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


def check_curriculum(recipe: Recipe, rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse rows without the columns that the curriculum needs, before a model loads.

    Raises:
        DataError: With the column, and those that there are.
    """
    curriculum = recipe.hybrid.curriculum
    if curriculum is None or not recipe.hybrid.steps or not rows:
        return
    names = names_of(rows)
    try:
        if lacking := curriculum.missing(names):
            raise curriculum.lack(lacking[0], names)
        if not (curriculum.completions or curriculum.passes):  # else rates or angles are to be measured
            curriculum.table(Columns(rows), names)
    except DataError as error:
        key = f"hybrid.{error.where}" if error.where else "hybrid.curriculum"
        raise DataError(error.seen, expected=error.expected, where=recipe.where(key), fix=error.fix) from error
