"""Several tasks in one run: each row says which it belongs to, and each task's own reward scores its rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from posttrain.errors import ConfigError, DataError
from posttrain.tasks import TaskData
from posttrain.tasks.json_structure import JsonStructure
from posttrain.tasks.knights_knaves import KnightsKnaves
from posttrain.tasks.math import Math

Row = dict[str, Any]

if TYPE_CHECKING:
    Part = Any
else:
    Part = Annotated[KnightsKnaves | Math | JsonStructure, Field(discriminator="name")]


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Tasks side by side, in the shares that their own `train`, `demonstrations` and `eval` give.

    A recipe may write the list of tasks alone: `task: [{name: math, ...}, {name: knights_knaves, ...}]`.

    Args:
        tasks: Two or more, each kind once.
    """

    __pydantic_config__ = {"extra": "forbid"}
    slice_by: ClassVar[str] = "task"

    name: Literal["mixture"] = "mixture"
    tasks: Annotated[list[Part], Field(min_length=2)]

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ConfigError(
                f"the task {min(twice)} stands there twice",
                expected="each kind of task once: its name tells the rewards which rows are theirs",
                where="tasks",
            )

    @property
    def train(self) -> int:
        """Prompts of all tasks."""
        return sum(task.train or 0 for task in self.tasks)

    @property
    def demonstrations(self) -> int:
        """Demonstrations of all tasks."""
        return sum(task.demonstrations or 0 for task in self.tasks)

    @property
    def eval(self) -> int:
        """Held-out rows of all tasks."""
        return sum(task.eval or 0 for task in self.tasks)

    def load(self, seed: int) -> TaskData:
        """The rows of all tasks with a column `task`; columns that only some have are `None` in the others.

        Raises:
            DataError: Two tasks have a column of the same name and different kinds.
        """
        parts = {task.name: task.load(seed) for task in self.tasks}
        return TaskData(
            train=_side_by_side({name: part.train for name, part in parts.items()}),
            demonstrations=_side_by_side({name: part.demonstrations for name, part in parts.items()}),
            eval=_side_by_side({name: part.eval for name, part in parts.items()}),
            notes=[f"{name}: {note}" for name, part in parts.items() for note in part.notes],
        )


def _side_by_side(parts: dict[str, list[Row]]) -> list[Row]:
    rows = [{**row, "task": name} for name, some in parts.items() for row in some]
    _check_kinds(rows)
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{**columns, **row} for row in rows]


def _check_kinds(rows: Iterable[Row]) -> None:
    """Raise a DataError when a column holds two kinds of value: a table has one kind a column, whoever's the row."""
    kinds: dict[str, tuple[type, str]] = {}
    for row in rows:
        for name, value in row.items():
            if value is None:
                continue
            kind, task = kinds.setdefault(name, (type(value), row["task"]))
            if type(value) is not kind:
                raise DataError(
                    f"the column {name!r} is {kind.__name__} in {task} and {type(value).__name__} in {row['task']}",
                    expected="one kind of value a column",
                    where="task.tasks",
                    fix="rename the column in one of the files",
                )
