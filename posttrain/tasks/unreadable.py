"""Rows whose gold answer `math_answer` cannot read: counted by kind, told with an example of each, and left out only
where it judges: another reward may well read them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol

from posttrain.tasks import Judges, label_of
from posttrain.tasks.row_counts import Tally

READER = "math_answer"
"""The reward whose reading is asked about."""


class Placed(Protocol):
    """A row."""

    @property
    def where(self) -> str:
        """Where it stands."""


class Unreadable:
    """Which of some rows have such an answer, and what they are still good for.

    Args:
        training: Whether `math_answer` is a reward of the training on these rows; None: they are only evaluated on.
        evaluation: Whether it judges their evaluation; None: they are only trained on.
    """

    def __init__(self, *, training: bool | None, evaluation: bool | None):
        self._training, self._evaluation = training, evaluation
        self._why: dict[str, str] = {}

    @property
    def of_no_use(self) -> bool:
        """Whether such rows are neither trained nor evaluated on."""
        return self._training is not False and self._evaluation is not False

    def see(self, row: Placed, answer: str | None) -> bool:
        """Whether a row's answer cannot be read; to be asked once of each row."""
        from posttrain.rewards.math_answer import why_unreadable  # here: naming a task needs no reward

        why = why_unreadable(answer)
        if why is not None:
            self._why[row.where] = why
        return why is not None

    def may_train(self, row: Placed) -> bool:
        """Whether a row can be trained on."""
        return self._training is False or row.where not in self._why

    def may_evaluate(self, row: Placed) -> bool:
        """Whether a row can be evaluated on."""
        return self._evaluation is False or row.where not in self._why

    def count(self, row: Placed, tally: Tally) -> None:
        """Count a row that is left out."""
        kind = self._why[row.where].partition(":")[0]
        if kind == "empty":
            tally.add("without an answer")
        else:
            tally.add("with an unreadable answer", kind=kind)

    def notes(self, of: int, what: str) -> list[str]:
        """A note with how many of each kind there are, and an example of each; none where all can be read.

        Args:
            of: All rows.
            what: What they are called.
        """
        if not self._why:
            return []
        kinds = Counter(why.partition(":")[0] for why in self._why.values())
        lines = []
        for kind, count in kinds.most_common():
            where, why = next((where, why) for where, why in self._why.items() if why.startswith(f"{kind}:"))
            lines.append(f"\n  {count:,} {kind}: {where}: {why.partition(': ')[2]}")
        return [f"{len(self._why):,} of {of:,} {what} {self._fate()}" + "".join(lines)]

    def _fate(self) -> str:
        cannot = f"{READER} cannot read"
        if self.of_no_use:
            return f"are left out: {cannot} their answer"
        if self._training:
            return f"are not trained on, only evaluated on by another reward: {cannot} their answer"
        if self._evaluation:
            return f"are not evaluated on, only trained on by other rewards: {cannot} their answer"
        return f"have an answer that {cannot}; they are kept, for other rewards judge them"


def reading(task: Any, judges: Judges | None) -> tuple[frozenset[str], frozenset[str]]:
    """The names of the rewards that judge a task's rows in training, and in evaluation."""
    if judges is None:
        own = frozenset([task.reward] if task.reward else [])
        return own, own
    label = label_of(task)
    return judges.training.get(label, frozenset()), judges.evaluation.get(label, frozenset())
