"""What a recipe can name as its task: where prompts, demonstrations and held-out rows come from.

A task is a frozen, keyword-only dataclass (validated inside the recipe by pydantic) with

- `name`, the literal that a recipe selects it by,
- `label`, its name in a mixture that has two of its kind,
- `reward`, the built-in reward that defines a pass (None: the recipe's rewards do; a mixture has `tasks` instead),
- `slice_by`, the column that evaluation slices by, such as a difficulty, or None,
- `load(seed, judges)`, which returns a `TaskData`.

Generators live with their task; how a reward judges does not belong here.

Other rooms import: `columns`, `countdown`, `json_structure`, `knights_knaves`, `math`, `mixture`, `noise`,
`row_counts`, `row_files`, `rows`, `rows.forms`, `rows.gather`, `rows.templates`, `table_structure`,
`table_structure.writing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol


@dataclass(frozen=True)
class TaskData:
    """The three row sets of a task.

    Every row has a `prompt` (text; chat wrapping happens later) and the columns that the task's reward reads.
    Demonstration rows also have a `completion`.

    Args:
        train: Prompts for the rollouts.
        demonstrations: Worked examples for the SFT half.
        eval: Held-out rows; none of them is among the other two, by content.
        notes: What the user should know about the rows, one paragraph each. Of rows from files the first one counts
            what became of them.
    """

    train: list[dict[str, Any]] = field(default_factory=list)
    demonstrations: list[dict[str, Any]] = field(default_factory=list)
    eval: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Judges:
    """Which rewards judge a task's rows, by its label. Rows that none of them can read are of no use there.

    Args:
        training: The names of those that the policy is trained by; of one that is not built in, where it is from.
        evaluation: The names of those by which a held-out row passes.
    """

    training: Mapping[str, frozenset[str]]
    evaluation: Mapping[str, frozenset[str]]


class Task(Protocol):
    """What the rest of posttrain relies on in a task."""

    @property
    def name(self) -> str:
        """The name that a recipe selects the task by."""

    @property
    def slice_by(self) -> str | None:
        """The column that evaluation slices by."""

    def load(self, seed: int, judges: Judges | None = None) -> TaskData:
        """The rows of this task for one seed, the same in every process.

        Args:
            seed: Of the order, and of what is generated.
            judges: What judges them; None: the task's own reward.
        """


def label_of(task: Any) -> str:
    """What rewards and rows of a mixture call a task: its label, else its name."""
    return str(getattr(task, "label", None) or task.name)


def own_rewards(task: Any) -> dict[str, str | None]:
    """Label of each task, one or those of a mixture, and the built-in reward that defines a pass there.

    None: the task has no reward of its own, and the recipe's rewards judge it.
    """
    return {label_of(part): part.reward for part in getattr(task, "tasks", [task])}


def held_out_alone(task: Any) -> Any:
    """The task without rows to train on, and the same held-out rows: those are drawn before all others."""
    if hasattr(task, "tasks"):
        return replace(task, tasks=[held_out_alone(part) for part in task.tasks])
    return replace(task, **{each.name: 0 for each in fields(task) if each.name in ("train", "demonstrations")})
