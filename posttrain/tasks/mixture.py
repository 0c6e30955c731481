"""Several tasks in one run: each row says which it belongs to, and each task's own reward scores its rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from posttrain.errors import ConfigError
from posttrain.tasks import Judges, TaskData, label_of
from posttrain.tasks.columns import content_key, rectangular
from posttrain.tasks.countdown import Countdown
from posttrain.tasks.json_structure import JsonStructure
from posttrain.tasks.knights_knaves import KnightsKnaves
from posttrain.tasks.math import Math
from posttrain.tasks.replay import KINDS, check_shares, replayed, wanted
from posttrain.tasks.rows import Rows
from posttrain.tasks.table_structure import TableStructure

Row = dict[str, Any]

if TYPE_CHECKING:
    Part = Any
else:
    Part = Annotated[
        KnightsKnaves | Math | JsonStructure | TableStructure | Countdown | Rows, Field(discriminator="name")
    ]


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Tasks side by side, in the shares that their own `train`, `demonstrations` and `eval` give.

    A recipe may write the list of tasks alone: `task: [{name: math, ...}, {name: knights_knaves, ...}]`.

    Args:
        tasks: Two or more. Those of one kind are told apart by a `label`, by which rewards and rows name them.
        replay: By task, the share of all demonstrations, and of all prompts, that are its rows, drawn from those that
            it has: old data beside a new task's. Tasks that are not named keep all of theirs.
    """

    __pydantic_config__ = {"extra": "forbid"}
    slice_by: ClassVar[str] = "task"

    name: Literal["mixture"] = "mixture"
    tasks: Annotated[list[Part], Field(min_length=2)]
    replay: dict[str, Annotated[float, Field(gt=0, lt=1)]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [label_of(task) for task in self.tasks]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(
                f"the task {twice} stands there twice",
                expected="a name of its own for each task: it tells the rewards which rows are theirs",
                where="tasks",
                fix="give them labels, such as {name: math, label: gsm8k, ...} and {name: math, label: olympiad, ...}",
            )
        check_shares(self.replay, names)

    @property
    def train(self) -> int | None:
        """Prompts of all tasks; None where one leaves the number to its rows."""
        return self._count("train")

    @property
    def demonstrations(self) -> int | None:
        """Demonstrations of all tasks; None where one leaves the number to its rows."""
        return self._count("demonstrations")

    @property
    def eval(self) -> int | None:
        """Held-out rows of all tasks; None where one leaves the number to its rows."""
        return _sum(task.eval for task in self.tasks)

    def _count(self, kind: str) -> int | None:
        """Rows of all tasks, of replayed ones as many as are drawn; None where one leaves the number to its rows."""
        counts = {label_of(task): getattr(task, kind) for task in self.tasks}
        if self.replay and None not in counts.values():
            counts |= wanted(counts, {label: share for label, share in self.replay.items() if counts[label]})
        return _sum(counts.values())

    def load(self, seed: int, judges: Judges | None = None) -> TaskData:
        """The rows of all tasks with a column `task`; columns that only some have are `None` in the others.

        A row that one task trains on and another holds out stays with the evaluation: it is left out of training.
        """
        parts = {label_of(task): task.load(seed, judges) for task in self.tasks}
        notes = [f"{name}: {note}" for name, part in parts.items() for note in part.notes]
        held_out = {content_key(row) for part in parts.values() for row in part.eval}
        kept = {name: _trained_on(part, held_out) for name, part in parts.items()}
        for name, part in parts.items():
            gone = len(part.train) - len(kept[name].train), len(part.demonstrations) - len(kept[name].demonstrations)
            if any(gone):
                notes.append(
                    f"{name}: {gone[0]} prompts and {gone[1]} demonstrations are left out: another task of the mixture "
                    "evaluates on them"
                )
        rows = {kind: {name: getattr(part, kind) for name, part in kept.items()} for kind in KINDS}
        for kind in KINDS if self.replay else ():
            rows[kind], said = replayed(rows[kind], self.replay, seed=seed, kind=kind)
            notes += said
        return TaskData(
            train=_side_by_side(rows["train"]),
            demonstrations=_side_by_side(rows["demonstrations"]),
            eval=_side_by_side({name: part.eval for name, part in kept.items()}),
            notes=notes,
        )


def _trained_on(part: TaskData, held_out: set[str]) -> TaskData:
    """A task's rows without those to train on that are held out."""

    def kept(rows: list[Row]) -> list[Row]:
        return [row for row in rows if content_key(row) not in held_out]

    return replace(part, train=kept(part.train), demonstrations=kept(part.demonstrations))


def _sum(counts: Iterable[int | None]) -> int | None:
    known = list(counts)
    return None if None in known else sum(count or 0 for count in known)


def _side_by_side(parts: dict[str, list[Row]]) -> list[Row]:
    return rectangular({**row, "task": name} for name, some in parts.items() for row in some)
